"""Rendering: objects as plain text or JSON, errors as one line and, for programs, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..model.errors import Denied, VdiskError
from ..model.specs import format_size

#: What a handler answers with.
Answer = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_SIZES = frozenset({"size", "used", "held"})


def render(answer: Answer, form: str, columns: Sequence[str] = ()) -> str:
    """Return the text of an answer in the format ``plain``, ``json`` or ``json-pretty``."""
    if form == "json":
        return json.dumps(answer, ensure_ascii=False)
    if form == "json-pretty":
        return json.dumps(answer, indent=4, ensure_ascii=False)
    if isinstance(answer, Mapping):
        return _block(answer)
    return _table(answer, columns)


def render_error(error: VdiskError, form: str) -> tuple[int, str, str]:
    """Return (negative errno, output, status line) of an error; the output has the JSON form for programs."""
    out = (
        "" if form == "plain" else json.dumps(error.to_dict(), indent=4 if form == "json-pretty" else None, default=str)
    )
    status = f"{error.code}: {error.message}"
    if isinstance(error, Denied):
        status += ". "  # the mgr appends a sentence of its own to every EACCES
    return -error.errno, out, status


def _block(answer: Mapping[str, Any], indent: str = "") -> str:
    """Lay out an object as aligned ``key: value`` lines, nested objects and lists below their key."""
    width = max((len(key) for key in answer), default=0) + 1
    lines = []
    for key, value in answer.items():
        if isinstance(value, Mapping):
            nested = _block(value, indent + "  ")
            lines.append(f"{indent}{key}:\n{nested}" if nested else f"{indent}{key + ':':<{width}} -")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(f"{indent}{key}:")
            lines += [_bullet(item, indent + "  ") for item in value]
        else:
            lines.append(f"{indent}{key + ':':<{width}} {_cell(key, value)}")
    return "\n".join(lines)


def _bullet(item: Mapping[str, Any], indent: str) -> str:
    return indent + "- " + _block(item, indent + "  ").lstrip()


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    if not rows:
        return ""
    names = list(columns) or list(rows[0])
    cells = [[name.partition(".")[0].upper().replace("_", " ") for name in names]]
    cells += [[_cell(name, _field(row, name)) for name in names] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _field(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(key: str, value: Any) -> str:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, int) and key.rpartition(".")[2] in _SIZES:
        return format_size(value)
    return str(value)

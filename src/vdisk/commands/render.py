"""Rendering: objects as plain text or JSON, errors as one line and, for programs, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Union

from ..model.errors import Denied, VdiskError
from ..model.specs import format_size

#: What a handler answers with.
Answer = Union[Mapping[str, Any], Sequence[Mapping[str, Any]], str]
_SIZES = frozenset({"size", "used", "held", "exclusive", "frees"})


def render(answer: Answer, form: str, columns: Sequence[str] = (), tree: bool = False) -> str:
    """Return the text of an answer in the format ``plain``, ``json`` or ``json-pretty``."""
    if form == "json":
        return json.dumps(answer, ensure_ascii=False)
    if form == "json-pretty":
        return json.dumps(answer, indent=4, ensure_ascii=False)
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Mapping):
        return _block(answer)
    if tree:
        return "\n".join(line for node in answer for line in _drawing(node, "", ""))
    return _table(answer, columns)


def _drawing(node: Mapping[str, Any], first: str, rest: str) -> list[str]:
    """Draw a node of a tree and what is below it; ``first`` and ``rest`` stand before its own and further lines."""
    lines = [first + _label(node)]
    children = node["children"]
    for number, child in enumerate(children, 1):
        last = number == len(children)
        lines += _drawing(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
    return lines


def _label(node: Mapping[str, Any]) -> str:
    """Describe a node of a tree in one line."""
    if node["pool"] is None:
        return "(an image that you may not see)"
    place = "/".join(part for part in (node["pool"], node["namespace"], node["image"]) if part)
    parts = [f"{node['kind']} {node['name']}"] if node["name"] else []
    parts += ["in the trash"] if node["trashed"] else []
    parts.append(format_size(node["size"]))
    parts += [f"{word} {format_size(node[word])}" for word in ("used", "exclusive") if node[word] is not None]
    parts += [f"depth {node['depth']}", f"made {node['created_at']}"]
    text = f"{place}: {', '.join(parts)}"
    text += f"; held: {'; '.join(node['held_by'])}" if node["held_by"] else "; nothing holds it"
    if node["frees"]:
        also = f" with {', '.join(node['frees_with'])}" if node["frees_with"] else ""
        text += f"; frees {format_size(node['frees'])}{also}"
    return text


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
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


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

"""Imports a copy of the module in a Python of its own: ``python -I probe.py DIRECTORY``, the one that holds ``vdisk``.

``mgr_module`` exists inside of a mgr only and is stood in for; ``rados`` and ``rbd`` are the real ones where this
Python has them. Prints JSON: ``commands`` and ``options`` (how many), ``problems`` (lines).
"""

import importlib
import json
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

_PART = re.compile(r"name=(\w+),type=Ceph(String|Int|Float|Bool|Choices)(,[\w.|=-]+)*")


class _StandIn(types.ModuleType):
    """A module in which every name is an exception class, which can be raised, caught, called and subclassed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Exception,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


def stand_ins() -> None:
    """Provide what only a mgr has, and librados and librbd where they are missing."""

    class MgrModule:
        """The base class, as far as a class body needs it."""

    class Option(dict[str, Any]):
        """An option's declaration."""

        def __init__(self, name: str, default: Any = None, **more: Any) -> None:
            super().__init__(name=name, default=default, **more)

    manager = types.ModuleType("mgr_module")
    manager.MgrModule = MgrModule  # type: ignore[attr-defined]
    manager.MgrStandbyModule = MgrModule  # type: ignore[attr-defined]
    manager.Option = Option  # type: ignore[attr-defined]
    sys.modules["mgr_module"] = manager
    for name in ("rados", "rbd"):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = _StandIn(name)


def signature_problems(command: Mapping[str, Any]) -> list[str]:
    """Check one entry of COMMANDS. A wrong one breaks the ``ceph`` tool of the whole cluster, so be strict."""
    text = str(command.get("cmd", ""))
    problems = []
    seen: set[str] = set()
    optional = False
    for part in text.split():
        if "=" not in part:
            if seen:
                problems.append(f"{text!r}: the word {part!r} comes after an argument")
            continue
        match = _PART.fullmatch(part)
        if match is None:
            problems.append(f"{text!r}: {part!r} is no argument")
            continue
        if match[1] in seen:
            problems.append(f"{text!r}: {match[1]!r} is there twice")
        seen.add(match[1])
        required = ",req=false" not in part
        if required and (optional or match[2] == "Bool"):
            problems.append(f"{text!r}: {match[1]!r} can't be mandatory there")
        optional = optional or not required
    if not text.startswith("vdisk ") or command.get("perm") not in ("r", "rw") or not command.get("desc"):
        problems.append(f"{text!r}: prefix, permission or description is wrong")
    return problems


def parser_problems(commands: list[Mapping[str, Any]]) -> list[str]:
    """Have the ``ceph`` tool's own parser read the signatures, where this Python has it."""
    try:
        parser = importlib.import_module("ceph_argparse")
    except ImportError:
        return []
    problems = []
    for command in commands:
        try:
            parser.parse_funcsig(_funcsig(str(command["cmd"])))
        except Exception as error:
            problems.append(f"{command['cmd']!r}: the ceph tool can't read it: {error!r}")
    return problems


def _funcsig(text: str) -> list[Any]:
    """Return a signature in the form that clients get it in: words, and an object for each argument."""
    words: list[Any] = []
    for part in text.split():
        if "=" not in part:
            words.append(part)
            continue
        pairs = dict(item.split("=", 1) for item in part.split(","))
        words.append({key: value == "true" if key == "req" else value for key, value in pairs.items()})
    return words


def probe(directory: str) -> dict[str, Any]:
    """Import the module from ``directory`` and look at what the mgr would read of it."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, directory)
    stand_ins()
    problems: list[str] = []
    try:
        module = importlib.import_module("vdisk.module")
        importlib.import_module("vdisk.standby")
    except Exception as error:
        return {"commands": 0, "options": 0, "problems": [f"importing it fails: {type(error).__name__}: {error}"]}
    found = getattr(module, "Module", None)
    commands = list(getattr(found, "COMMANDS", []))
    options = list(getattr(found, "MODULE_OPTIONS", []))
    if not commands:
        problems.append("it has no commands")
    if not str(module.__file__).startswith(directory.rstrip("/") + "/"):
        problems.append(f"another copy was imported, from {module.__file__}")
    for command in commands:
        problems += signature_problems(command)
    problems += parser_problems(commands)
    return {"commands": len(commands), "options": len(options), "problems": problems}


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))

"""Commands and their arguments as plain data, the signature that the ``ceph`` CLI gets of them, and strict parsing.

Commands are declared as signature strings and handled from the raw command dictionary, which every release supports,
instead of through the decorators of ``mgr_module``, which differ between releases and turn a missing
string into ``'None'`` and ``"false"`` into true.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model.errors import InvalidArgument

#: Keys of every command dictionary that are not arguments.
_TRANSPORT = frozenset({"prefix", "target", "format", "module"})
FORMATS = ("plain", "json", "json-pretty")


@dataclass(frozen=True)
class Argument:
    """An argument: ``type`` is ``string``, ``size`` (text or an integer), ``int``, ``float`` or ``bool``."""

    name: str
    type: str = "string"
    required: bool = False
    help: str = ""

    def signature(self) -> str:
        """Return its part of the signature."""
        kind = {
            "string": "CephString",
            "size": "CephString",
            "int": "CephInt",
            "float": "CephFloat",
            "bool": "CephBool",
        }
        return f"name={self.name},type={kind[self.type]}" + ("" if self.required else ",req=false")

    def parse(self, value: Any) -> Any:
        """Return the value in its Python type, or raise ``InvalidArgument``. Numbers may come as text."""
        parse: Callable[[Any], Any] = getattr(self, f"_parse_{self.type}")
        return parse(value)

    def _parse_string(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise InvalidArgument(f"{self.name} has to be text that is not empty")
        return value

    def _parse_size(self, value: Any) -> int | str:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise InvalidArgument(f"{self.name} has to be bytes or text such as 10G")
        return value

    def _parse_int(self, value: Any) -> int:
        try:
            if isinstance(value, (bool, float)):
                raise ValueError
            return int(value)
        except (ValueError, TypeError):
            raise InvalidArgument(f"{self.name} {value!r} is no whole number") from None

    def _parse_float(self, value: Any) -> float:
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
        except (ValueError, TypeError, OverflowError):
            raise InvalidArgument(f"{self.name} {value!r} is no number") from None
        if not math.isfinite(number):
            raise InvalidArgument(f"{self.name} {value!r} is no finite number")
        return number

    def _parse_bool(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise InvalidArgument(f"{self.name} {value!r} is neither true nor false")


WAIT = Argument("wait", "float", help="seconds to wait for the end; 0 answers at once")
DRY_RUN = Argument("dry_run", "bool", help="show the steps that would run, change nothing")


@dataclass(frozen=True)
class Command:
    """A command: its words after ``vdisk``, its arguments, whether it changes anything, and what it does."""

    words: str
    handler: str
    help: str
    arguments: tuple[Argument, ...] = ()
    changes: bool = False
    columns: tuple[str, ...] = field(default=())
    """Columns of the plain table for commands that answer with a list."""
    tree: bool = False
    """The answer is a list of nested nodes, which are drawn."""

    @property
    def prefix(self) -> str:
        """The command's prefix."""
        return f"vdisk {self.words}"

    @property
    def all_arguments(self) -> tuple[Argument, ...]:
        """Its own arguments and those that every changing command takes. Booleans come last."""
        if not self.changes:
            return self.arguments
        # Nothing may follow a boolean in the CLI's signatures but booleans.
        plain = [argument for argument in self.arguments if argument.type != "bool"]
        flags = [argument for argument in self.arguments if argument.type == "bool"]
        return (*plain, WAIT, *flags, DRY_RUN)

    def declaration(self) -> dict[str, Any]:
        """Return the entry of ``MgrModule.COMMANDS``."""
        return {
            "cmd": " ".join([self.prefix, *(argument.signature() for argument in self.all_arguments)]),
            "desc": self.help,
            "perm": "rw" if self.changes else "r",
            "poll": False,
        }

    def parse(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Check a raw command dictionary and return its arguments by name; optional ones that are absent are None."""
        known = {argument.name for argument in self.all_arguments}
        unknown = sorted(key for key in raw if key not in known and key not in _TRANSPORT)
        if unknown:
            names = ", ".join(argument.name for argument in self.all_arguments) or "none"
            raise InvalidArgument(f"unknown argument {unknown[0]!r} of '{self.prefix}'; it takes: {names}")
        parsed: dict[str, Any] = {}
        for argument in self.all_arguments:
            value = raw.get(argument.name)
            if value is not None:
                parsed[argument.name] = argument.parse(value)
            elif argument.required:
                raise InvalidArgument(f"{argument.name} is missing: '{self.prefix}' needs it")
            else:
                parsed[argument.name] = None
        wait = parsed.get("wait")
        if wait is not None and not 0 <= wait <= 3600:
            raise InvalidArgument(f"wait {wait:g} is not between 0 and 3600 seconds")
        return parsed


def parse_format(raw: Mapping[str, Any]) -> str:
    """Return the output format that a raw command asks for."""
    value = raw.get("format") or "plain"
    if value not in FORMATS:
        raise InvalidArgument(f"format {value!r} is none of {', '.join(FORMATS)}")
    return str(value)

"""Floors import only downward, and nothing but the standard library, rados, rbd and mgr_module (doc/internals.md)."""

import ast
import functools
import sys
from pathlib import Path

import pytest

import vdisk

SRC = Path(vdisk.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
#: What each floor may import besides itself. The lower floors' order is that of reading: call order.
ALLOWED = {
    "vdisk": {"module", "standby"},
    "standby": {"module", "web"},
    "module": {"commands", "service", "engine", "cluster", "model", "web"},
    "web": set(),
    "commands": {"service", "engine", "lifecycle", "model"},
    "service": {"engine", "lifecycle", "model"},
    "engine": {"lifecycle", "model"},
    "lifecycle": {"model"},
    "model": set(),
    "cluster": {"model"},
}
FOREIGN = {
    "rados": {"cluster"},
    "rbd": {"cluster"},
    "mgr_module": {"module", "standby", "commands"},
    "ceph_module": {"vdisk"},
}


def floor(path):
    first = path.relative_to(SRC).parts[0]
    return "vdisk" if first == "__init__.py" else first.removesuffix(".py")


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


def imports(path):
    """Yield ("vdisk", floor) and ("outside", package) for every import of a file, wherever it stands in it."""
    package = ["vdisk", *path.relative_to(SRC).parent.parts]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module or "").split(".")] if node.module else base
            names = [".".join(full)] if node.module else [".".join([*full, alias.name]) for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "vdisk":
                yield "vdisk", parts[1] if len(parts) > 1 else "vdisk"
            else:
                yield "outside", parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_floors_import_only_downward_and_only_what_they_may(path):
    here = floor(path)
    assert here in ALLOWED, f"{here} is a floor that the design does not know"
    for kind, name in imports(path):
        if kind == "vdisk":
            assert name == here or name in ALLOWED[here], f"{here} imports {name}"
        elif name in FOREIGN:
            assert here in FOREIGN[name], f"{here} imports {name}"
        else:
            assert name in sys.stdlib_module_names, f"{here} imports {name}, which a mgr may not have"


def test_the_check_sees_imports():
    found = set().union(*(set(imports(path)) for path in FILES))
    assert {("outside", "rados"), ("outside", "rbd"), ("outside", "mgr_module"), ("vdisk", "model")} <= found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_everything_public_has_a_docstring(path):
    tree = parsed(path)
    if path.name != "__init__.py":
        assert ast.get_docstring(tree), "the module"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    assert ast.get_docstring(method), f"{node.name}.{method.name}"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name

"""The documentation says what the code says: every command, argument, option, error code and step."""

import ast
import re
from pathlib import Path

import pytest

from vdisk.commands.arguments import Command
from vdisk.commands.table import COMMANDS
from vdisk.lifecycle import steps
from vdisk.model.errors import ERROR_CLASSES
from vdisk.model.findings import Trouble

REPO = Path(__file__).resolve().parents[2]
DOC = REPO / "doc"


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {heading!r}"
    return found[1]


def options() -> dict[str, dict[str, object]]:
    """Return name and keywords of every module option, read from the source: mgr_module exists inside of a mgr only."""
    found = {}
    for call in ast.walk(ast.parse((REPO / "src/vdisk/module.py").read_text())):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Option":
            name = ast.literal_eval(call.args[0])
            plain = [keyword for keyword in call.keywords if isinstance(keyword.value, ast.Constant)]
            found[name] = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in plain}
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_every_command_and_argument_is_described(command: Command) -> None:
    text = section((DOC / "commands.md").read_text(), command.prefix)
    for argument in command.all_arguments:
        assert f"`{argument.name}`" in text, argument.name
    assert f"$ ceph {command.prefix}" in text, "there is no example"


def test_no_command_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^### (vdisk .+)$", (DOC / "commands.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(command.prefix for command in COMMANDS)


def test_every_option_is_described_as_it_is() -> None:
    rows = {}
    for line in section((DOC / "operations.md").read_text(), "Options").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].startswith("`"):
            rows[cells[0].strip("`")] = cells[1:]
    found = options()
    assert list(rows) == list(found)
    for name, option in found.items():
        kind, default, extent, at_once, about = rows[name]
        assert kind == option["type"], name
        assert default == ("(empty)" if option["default"] == "" else f"`{option['default']}`"), name
        assert at_once == ("yes" if option["runtime"] else "no"), name
        assert about.replace("`", "") == option["desc"], name
        for bound in ("min", "max"):
            assert bound not in option or str(option[bound]) in extent.split(), name


def test_every_error_code_is_described() -> None:
    text = (DOC / "errors.md").read_text()
    for error in ERROR_CLASSES:
        assert f"| `{error.code}` | E" in text, error.code
        assert f"| {'yes' if error.retryable else 'no'} |" in next(
            line for line in text.splitlines() if line.startswith(f"| `{error.code}`")
        )


def test_every_step_is_named() -> None:
    text = section((DOC / "internals.md").read_text(), "Failpoints")
    kinds = [kind for kind in vars(steps).values() if isinstance(kind, type) and issubclass(kind, steps.Step)]
    for kind in kinds:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()
        assert kind is steps.Step or f"`{name}`" in text, name


def test_every_class_of_finding_is_described() -> None:
    text = (DOC / "check.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [trouble.value for trouble in Trouble]


def test_links_lead_somewhere() -> None:
    for page in [REPO / "README.md", *DOC.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

"""The documentation says what the code says: every command, argument, option, error code and step."""

import ast
import configparser
import dataclasses
import errno
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from transcripts.blocks import Block, blocks
from vdisk.commands.arguments import Command
from vdisk.commands.table import COMMANDS
from vdisk.engine.runner import ERASE_INTENT, WRITE_INTENT
from vdisk.lifecycle import steps
from vdisk.lifecycle.registry import REQUESTS
from vdisk.model.errors import ERROR_CLASSES
from vdisk.model.findings import Trouble
from vdisk.service.telemetry import FIGURES

REPO = Path(__file__).resolve().parents[2]
DOC = REPO / "doc"


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every row of the tables in a text, heads and rules left out."""
    lines = re.findall(r"(?<=\n)\|(.*)\|\n(?!\|-)", text.replace("\\|", "\N{BROKEN BAR}"))
    return [[cell.strip() for cell in line.split("|")] for line in lines if not line.startswith("-")]


def quoted(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def sources() -> Iterator[ast.AST]:
    """Every node of the module's source."""
    for path in sorted((REPO / "src/vdisk").rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text()))


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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_every_command_is_called_as_it_is_shown(command: Command) -> None:
    found = re.search(r"^`(.+)`$", section((DOC / "commands.md").read_text(), command.prefix), re.MULTILINE)
    assert found is not None
    assert found[1].startswith(command.prefix)
    required, optional = set(), set()
    for bracket, option, place in re.findall(r"(\[?)(?:--([a-z-]+)|<([^>]+)>)", found[1]):
        names = [option.replace("-", "_")] if option else place.split(" or ")
        (optional if bracket else required).update(names)
    known = {argument.name for argument in command.all_arguments}
    assert known <= required | optional
    # `<pool_spec or volume>` is one argument that takes two forms; `<pool_spec or image_spec>` one of two arguments.
    assert (required | optional) - known <= {"volume"}
    assert {argument.name for argument in command.all_arguments if argument.required} <= required
    assert required & known <= {argument.name for argument in command.all_arguments if argument.required} | (
        {"pool_spec", "image_spec"} if command.words == "snap ls" else set()
    )


def test_no_command_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^### (vdisk .+)$", (DOC / "commands.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(command.prefix for command in COMMANDS)


def test_every_option_is_described_as_it_is() -> None:
    found = options()
    described = rows(section((DOC / "operations.md").read_text(), "Options"))
    assert [quoted(cells[0])[0] for cells in described] == list(found)
    for (name, option), (_, kind, default, extent, about) in zip(found.items(), described, strict=True):
        assert option["runtime"], f"{name}: the page says that each takes effect at once"
        assert kind == option["type"], name
        assert default == ("(empty)" if option["default"] == "" else f"`{option['default']}`"), name
        assert about.replace("`", "") == option["desc"], name
        for bound in ("min", "max"):
            assert bound not in option or str(option[bound]) in extent.split(), name


def test_every_error_code_is_described_as_it_is() -> None:
    told: dict[str, set[str]] = {error.code: set() for error in ERROR_CLASSES}
    codes = {error.__name__: error.code for error in ERROR_CLASSES}
    for call in sources():
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in codes:
            told[codes[call.func.id]] |= {str(keyword.arg) for keyword in call.keywords}
    described = [cells for cells in rows((DOC / "errors.md").read_text()) if len(cells) == 6]
    assert [quoted(cells[0])[0] for cells in described] == [error.code for error in ERROR_CLASSES]
    for error, (_, number, retryable, about, details, _) in zip(ERROR_CLASSES, described, strict=True):
        assert number == errno.errorcode[error.errno].replace("ENOTSUP", "EOPNOTSUPP"), error.code
        assert retryable == ("yes" if error.retryable else "no"), error.code
        assert about
        assert set(quoted(details)) == told[error.code], error.code


def test_every_figure_is_described_as_it_is() -> None:
    described = rows(section((DOC / "metrics.md").read_text(), "Figures"))
    assert described == [[f"`{name}`", kind, f"`{path}`", about] for path, (name, kind, about) in FIGURES.items()]


def handbook(heading: str) -> dict[str, list[list[str]]]:
    """Return the rows of a part of the handbook by the first words in backticks; no cell is empty."""
    found: dict[str, list[list[str]]] = {}
    for cells in rows(section((DOC / "operations.md").read_text(), heading)):
        assert len(cells) >= 4
        assert all(cells), cells
        found.setdefault(quoted(cells[0])[0], []).append(cells)
    return found


def test_the_handbook_has_every_health_check() -> None:
    texts = {node.value for node in sources() if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    variables = {"VDISK_FAILPOINT", "VDISK_SCHEDULE_CLOCK"}
    assert set(handbook("Health checks")) == {text for text in texts if re.fullmatch("VDISK_[A-Z_]+", text)} - variables


def test_the_handbook_has_every_error_code() -> None:
    assert list(handbook("Errors")) == [error.code for error in ERROR_CLASSES]
    for error in ERROR_CLASSES:
        for cells in handbook("Errors")[error.code]:
            assert errno.errorcode[error.errno].replace("ENOTSUP", "EOPNOTSUPP") in cells[0]


def test_every_failpoint_is_named_and_no_other() -> None:
    kinds = [kind for kind in vars(steps).values() if isinstance(kind, type) and issubclass(kind, steps.Step)]
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower() for kind in kinds if kind is not steps.Step]
    text = section((DOC / "internals.md").read_text(), "Failpoints")
    (line,) = [line for line in text.splitlines() if line.startswith("`reserve-name`")]
    assert sorted(quoted(line)) == sorted([*names, WRITE_INTENT, ERASE_INTENT])


def test_every_kind_and_field_of_an_intent_is_described() -> None:
    described = rows(section((DOC / "internals.md").read_text(), "Kinds"))
    kinds, fields = [[cells for cells in described if len(cells) == width] for width in (3, 2)]
    common = {"where", "name", "uuid"}
    written = {}
    for kind, request in REQUESTS.items():
        own = [field for field in dataclasses.fields(request) if field.name not in common]
        written[kind] = [f"`{f.name}`" if f.default is dataclasses.MISSING else f"*`{f.name}`*" for f in own]
    assert {quoted(cells[0])[0]: cells[2].split(", ") if cells[2] else [] for cells in kinds} == written
    assert {name for cells in fields for name in quoted(cells[0])} == {
        field.strip("*`") for own in written.values() for field in own
    }


@pytest.mark.parametrize("floor", ["engine", "cluster"])
def test_every_file_of_the_floor_is_named(floor: str) -> None:
    text = section((DOC / "internals.md").read_text(), "Floors")
    table = text[text.index(f"In `{floor}/`:") :].split("\n\n")[1]
    named = [name for cells in rows("\n" + table + "\n") for name in quoted(cells[0])]
    files = {path.name for path in (REPO / "src/vdisk" / floor).glob("*.py")} - {"__init__.py"}
    assert sorted(named) == sorted(files)


def test_every_class_of_finding_is_described() -> None:
    described = rows(section((DOC / "check.md").read_text(), "Classes"))
    assert [quoted(cells[0])[0] for cells in described] == [trouble.value for trouble in Trouble]
    assert all(len(cells) == 5 and all(cells) for cells in described), "symptom, meaning, cure"


def test_links_lead_somewhere() -> None:
    for page in [REPO / "README.md", *DOC.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_to_others_are_of_known_hosts() -> None:
    known = {"docs.ceph.com", "github.com", "semver.org"}
    found = [link for page in [*PAGES, REPO / "CHANGELOG.md"] for link in LINK.findall(page.read_text())]
    assert found
    for link in found:
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc in known, parts.port, parts.query) == ("https", True, None, ""), link


def test_what_installing_prints_is_what_is_there() -> None:
    files, text = list((REPO / "src/vdisk").rglob("*.py")), (DOC / "install.md").read_text()
    assert f"({len(files)} files, {len(COMMANDS)} commands, {len(options())} options, checked)" in text


# -- command lines: tests/cluster/test_docs.py types those in `console` blocks; here is what holds for all of them -----

PAGES = [REPO / "README.md", REPO / "SECURITY.md", *sorted(DOC.glob("*.md"))]
LINK = re.compile(r"\]\((\w+:[^)\s]+)\)")
#: Blocks that can't be typed on a cluster of the tests and are run by no other test, by page.
NOT_RUN = {"commands.md": 1, "csi.md": 1, "install.md": 3, "testing.md": 2}
#: What a line of a command begins with, in blocks that don't say that they are commands.
COMMAND = re.compile(r"(\$ )?(ceph|rbd|make|apt-get|podman|kubectl|python3|tools/\S+|/opt/\S+|[A-Z_]+=\S* make) ")


def all_blocks() -> list[tuple[str, Block]]:
    """Every fenced block of every page, with the page's name."""
    return [(page.name, block) for page in PAGES for block in blocks(page.read_text())]


def command_lines() -> list[tuple[str, str]]:
    """Every command line of every page: those with a prompt, and those of blocks that have none."""
    found = []
    for page, block in all_blocks():
        lines = block.body.replace("\\\n", " ").splitlines()
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [(page, line) for line in prompted or (lines if block.language == "sh" else [])]
    return found


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    counted = {}
    for page, block in all_blocks():
        if block.language == "sh":
            assert block.remark is not None, f"{page}: nothing says by what this is run:\n{block.body}"
            assert block.remark.kind in ("run by", "not run"), block.remark
        elif block.language in ("", "text"):
            typed = [line for line in block.body.splitlines() if COMMAND.match(line)]
            told = block.remark is not None and block.remark.kind == "not run"
            assert not typed or told, f"{page}: typed by nobody, it wants the language console:\n{block.body}"
        if block.remark is not None and block.remark.kind == "not run":
            counted[page] = counted.get(page, 0) + 1
            assert block.remark.text
        if block.remark is not None and block.remark.kind == "run by":
            for name in block.remark.text.split(", "):
                assert (REPO / name).exists(), f"{page}: {name}"
    assert counted == NOT_RUN


def test_vdisk_commands_have_the_arguments_that_they_are_shown_with() -> None:
    prefixes = {command.prefix: command for command in COMMANDS}
    seen = set()
    for page, line in command_lines():
        found = re.match(r"ceph (?:--id \S+ )?(vdisk (?:[a-z]+ )*[a-z]+)\b(.*)", line.split(" 2>")[0])
        if found is None:
            continue
        words = found[1].split()
        prefix = next((" ".join(words[:n]) for n in range(len(words), 0, -1) if " ".join(words[:n]) in prefixes), None)
        assert prefix is not None, f"{page}: {line}"
        seen.add(prefix)
        known = {argument.name.replace("_", "-") for argument in prefixes[prefix].all_arguments} | {"format"}
        for option in re.findall(r"(?<=\s)--([a-z-]+)", found[2]):
            assert option in known, f"{page}: --{option} in {line}"
    assert seen == set(prefixes), "every command has an example"


def test_what_command_lines_name_exists() -> None:
    known_options = options()
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    scripts = set(re.findall(r'"([a-z-]+) = ', (REPO / "setup.py").read_text()))
    for page, line in command_lines():
        for option in re.findall(r"mgr/vdisk/(\w+)", line):
            assert option in known_options, f"{page}: {line}"
        if line.startswith("make "):
            for target in shlex.split(line, comments=True)[1:]:
                assert "=" in target or target in targets, f"{page}: {target} in {line}"
        for path in re.findall(r"(?<=[\s=])((?:deploy|tools|tests|doc|bench|src)/[\w./-]+)", line):
            assert (REPO / path).exists() or ">" in line, f"{page}: {path} in {line}"
        for program in re.findall(r"(?:^|/|\s)(vdisk-[a-z]+)(?=\s|$)", line.split("#")[0]):
            named = ("client." + program) in line or "--id " + program in line
            assert program in scripts or named or f"--id {program}" in line, f"{page}: {program} in {line}"


def test_drawings_are_what_the_code_draws() -> None:
    code = runpy.run_path(str(REPO / "tools/drawings.py"))
    for name, draw in code["DRAWINGS"].items():
        assert (DOC / f"images/{name}.svg").read_text() == draw().svg(), "run `make drawings`"


def test_the_matrix_names_tests_that_exist_and_every_release() -> None:
    text = (DOC / "matrix.md").read_text()
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    assert len(tables) == 4
    for rows in tables:
        assert re.fullmatch(r"(\|-+)+\|", rows[1])
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
        assert len(columns) == 1, rows
    files = re.findall(r"`(tests/cluster/\w+\.py)`", "\n".join(tables[1]))
    assert files
    for file in files:
        assert (REPO / file).exists(), file
    assert "failed**" not in text


def test_a_matrix_is_made_of_what_pytest_writes(tmp_path: Path) -> None:
    (tmp_path / "tentacle.xml").write_text(
        '<testsuites><testsuite name="pytest" time="90.0" timestamp="2026-11-24T21:00:01.5+00:00">'
        '<properties><property name="ceph" value="20.2.4"/><property name="python" value="3.14.0"/></properties>'
        '<testcase classname="tests.cluster.test_note" name="a"/>'
        '<testcase classname="tests.cluster.test_note" name="b"><skipped message="no reason"/></testcase>'
        '<testcase classname="tests.cluster.test_tree" name="c"><failure message="x"/></testcase>'
        '<testcase classname="tests.cluster.test_tree" name="c"><error message="y"/></testcase>'
        "</testsuite></testsuites>"
    )
    code = runpy.run_path(str(REPO / "tools/matrix.py"))
    text = code["page"]({"tentacle": code["read"](tmp_path / "tentacle.xml")}, None, 2)
    assert "| Ceph | 20.2.4 |" in text
    assert "| The source note, replayed step by step | `tests/cluster/test_note.py` | 1 passed, 1 skipped |" in text
    # One that failed, and then once more while it was cleared up, is one test.
    assert "| `tests/cluster/test_tree.py` | **1 failed** |" in text
    assert "| `tests/cluster/test_note.py` | Tentacle | 1 | no reason |" in text
    assert "| `tests/cluster/test_seal.py` | not run |" in text
    assert "run again" not in text
    assert "## The soak" not in text
    soak = {"seed": 7, "seconds": 60.0, "operations": {"snap rm": 2, "snap create": 1200}, "faults": {"blocklist": 1}}
    soak |= {"repeats": 3, "longest": 4.5, "usages": [{"threads": 99, "files": 70, "memory": 120.4}] * 3}
    (tmp_path / "tentacle.again.xml").write_text(
        '<testsuites><testsuite timestamp="2026-11-24T23:00:01">'
        '<testcase classname="tests.cluster.test_tree" name="c"/>'
        '<testcase classname="tests.cluster.test_soak" name="d"><properties><property name="soak" value="'
        + json.dumps(soak).replace('"', "&quot;")
        + '"/></properties></testcase></testsuite></testsuites>'
    )
    text = code["page"]({"tentacle": code["read"](tmp_path / "tentacle.xml", tmp_path / "tentacle.again.xml")}, None, 2)
    assert "| `tests/cluster/test_tree.py` | 1 passed |" in text
    assert "| of them run again | 2 |" in text
    row = "| Tentacle | 2026-11-24 23:00 | 7 | 60 | 1,202: snap create 1,200, snap rm 2 | 1: blocklist 1 | 3 | 4.5 s "
    assert row + "| 99, 99, 99 | 70, 70, 70 | 120, 120, 120 |" in text


def test_the_list_of_what_all_is_made_of_has_all_that_is_pinned_and_nothing_of_the_machine() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(REPO / "tox.ini")
    made = tox["testenv:sbom"]
    pinned = {
        str(path.relative_to(REPO)) for place in ("tools", "doc") for path in (REPO / place).glob("requirements*")
    }
    assert set(re.findall(r"-r (\S+)", made["commands_pre"])) == pinned
    assert not made.getboolean("system_site_packages")
    assert "--system-site-packages" not in made["commands_pre"]
    assert made["commands"].split()[-1] == "{env_dir}/listed", "an environment with nothing else"

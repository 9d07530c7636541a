"""vdisk-install: what it puts where, what it refuses, and that a whole version is there at every moment."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vdisk_install import __version__, checks, cli, places, probe, tree
from vdisk_install.errors import InstallError

SOURCE = Path(__file__).resolve().parents[2] / "src/vdisk"


_probed: dict[object, checks.Report] = {}
_compiled: set[bytes] = set()


@pytest.fixture(autouse=True)
def _the_same_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import the same files once only: it takes a Python of its own each time, which says the same again."""
    probe_really = checks._probe

    def probe_once(module: Path) -> checks.Report:
        contents = sorted((str(path.relative_to(module)), path.read_bytes()) for path in module.rglob("*.py"))
        key = module.is_symlink(), *contents
        if key not in _probed:
            _probed[key] = probe_really(module)
        return _probed[key]

    monkeypatch.setattr(checks, "_probe", probe_once)


@pytest.fixture(autouse=True)
def _the_same_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile the same bytes once only; what is no Python says so each time."""

    def compile_once(source: bytes, *args: Any, **kwargs: Any) -> None:
        if source not in _compiled:
            compile(source, *args, **kwargs)
            _compiled.add(source)

    monkeypatch.setattr(checks, "compile", compile_once, raising=False)


@pytest.fixture(autouse=True)
def _no_package_owns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this machine's package manager unasked."""
    monkeypatch.setattr(cli, "package_of", lambda path: "")


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """An empty directory of mgr modules."""
    path = tmp_path / "mgr"
    path.mkdir()
    (path / "mgr_module.py").touch()
    return path


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the module that a test may change; it is what gets installed."""
    path = tmp_path / "source/vdisk"
    path.parent.mkdir()
    shutil.copytree(SOURCE, path, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cli, "source_directory", lambda: path)
    return path


def install(modules: Path, *args: str) -> int:
    """Run the command line."""
    return cli.main(["--path", str(modules), *args])


def left(modules: Path) -> list[str]:
    """Names in the directory of modules."""
    return sorted(path.name for path in modules.iterdir())


def test_copies_the_module_and_says_what_is_next(
    modules: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(modules) == 0
    assert tree.same_tree(source, modules / "vdisk")
    assert left(modules) == ["mgr_module.py", "vdisk"]
    assert "ceph mgr module enable vdisk" in capsys.readouterr().out


def test_files_are_readable_whatever_the_umask(modules: Path, source: Path) -> None:
    (source / "module.py").chmod(0o600)
    before = os.umask(0o077)
    try:
        assert install(modules) == 0
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (modules / "vdisk").rglob("*") if path.is_file()}
    assert modes == {0o644}
    assert (modules / "vdisk/model").stat().st_mode & 0o777 == 0o755


def test_repeating_changes_nothing(modules: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(modules)
    inode = (modules / "vdisk").stat().st_ino
    assert install(modules) == 0
    assert (modules / "vdisk").stat().st_ino == inode
    assert "nothing was changed" in capsys.readouterr().out


def test_repeating_mends_permissions(modules: Path, source: Path) -> None:
    install(modules)
    (modules / "vdisk/module.py").chmod(0o600)
    assert install(modules) == 0
    assert (modules / "vdisk/module.py").stat().st_mode & 0o777 == 0o644


def test_another_version_replaces_the_whole_of_it(modules: Path, source: Path) -> None:
    install(modules)
    (modules / "vdisk/gone_in_the_new_one.py").touch()
    assert install(modules) == 0
    assert tree.same_tree(source, modules / "vdisk")


def test_link_and_copy_replace_each_other(modules: Path, source: Path) -> None:
    assert install(modules, "--link") == 0
    assert (modules / "vdisk").resolve() == source
    assert install(modules, "--link") == 0
    assert install(modules) == 0
    assert not (modules / "vdisk").is_symlink()
    assert install(modules, "--link") == 0
    assert (modules / "vdisk").is_symlink()
    assert left(modules) == ["mgr_module.py", "vdisk"]


def test_replaces_where_names_can_not_be_exchanged(
    modules: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_exchange", lambda one, other: False)
    install(modules, "--link")
    assert install(modules) == 0
    assert tree.same_tree(source, modules / "vdisk")


def test_old_version_returns_when_the_new_can_not_be_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "vdisk"
    target.mkdir()
    (target / "old").touch()
    monkeypatch.setattr(tree, "_exchange", lambda one, other: False)
    with pytest.raises(OSError, match="missing"):
        tree.swap_in(tmp_path / "missing", target)
    assert (target / "old").exists()


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("service/core.py", "def broken(:\n", "core.py"),
        ("service/core.py", "import no_such_module_anywhere\n", "no_such_module_anywhere"),
        ("commands/table.py", "COMMANDS = ()\n", "no commands"),
    ],
)
def test_a_broken_version_never_gets_in_place(
    modules: Path, source: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, said: str
) -> None:
    install(modules)
    whole = {path: path.read_bytes() for path in (modules / "vdisk").rglob("*.py")}
    (source / file).write_text(text)
    capsys.readouterr()
    assert install(modules) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in [line for line in error.splitlines() if "warning" not in line]
    assert {path: path.read_bytes() for path in (modules / "vdisk").rglob("*.py")} == whole
    assert left(modules) == ["mgr_module.py", "vdisk"]


def test_refuses_what_is_not_vdisk(modules: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (modules / "vdisk").mkdir()
    (modules / "vdisk/precious").touch()
    for args in ((), ("--link",), ("--check",), ("--uninstall",)):
        assert install(modules, *args) == 1
        assert "not the vdisk module" in capsys.readouterr().err
    assert (modules / "vdisk/precious").exists()


def test_refuses_what_a_package_owns(
    modules: Path, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(modules)
    inode = (modules / "vdisk").stat().st_ino
    owners = {modules / "vdisk/module.py": "ceph-mgr-vdisk"}
    monkeypatch.setattr(cli, "package_of", lambda path: owners.get(path, ""))
    (source / "module.py").write_text((source / "module.py").read_text() + "# newer\n")
    for args in ((), ("--link",), ("--uninstall",)):
        capsys.readouterr()
        assert install(modules, *args) == 1
        said = capsys.readouterr()
        assert said.err == (
            f"vdisk-install: {modules / 'vdisk'} belongs to the package ceph-mgr-vdisk: "
            "upgrade or remove that package instead\n"
        )
        assert said.out == ""
        assert (modules / "vdisk").stat().st_ino == inode
    assert install(modules, "--check") == 0
    assert "of the package ceph-mgr-vdisk" in capsys.readouterr().out


def test_refuses_a_link_that_leads_nowhere(modules: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (modules / "vdisk").symlink_to("/nonexistent/vdisk")
    assert install(modules) == 1
    assert "does not exist: remove the link first" in capsys.readouterr().err
    assert install(modules, "--uninstall") == 0
    assert left(modules) == ["mgr_module.py"]


def test_refuses_a_directory_without_mgr_modules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(tmp_path) == 1
    assert "mgr_module.py" in capsys.readouterr().err
    assert install(tmp_path / "none") == 1
    assert "is not a directory" in capsys.readouterr().err


def test_one_installation_at_a_time(modules: Path) -> None:
    with tree.staging(modules), pytest.raises(InstallError, match="another vdisk-install"), tree.staging(modules):
        pass


def test_what_a_killed_run_left_is_cleaned_up(modules: Path, source: Path) -> None:
    (modules / ".vdisk-install.dead/vdisk").mkdir(parents=True)
    assert install(modules) == 0
    assert left(modules) == ["mgr_module.py", "vdisk"]


def test_a_mgr_sees_no_module_in_what_is_being_prepared(modules: Path, source: Path) -> None:
    with tree.staging(modules) as work:
        tree.copy_module(source, work / "vdisk")
        # A mgr takes every directory with a module.py for a module.
        assert [path for path in modules.iterdir() if (path / "module.py").exists()] == []


def test_uninstall_removes_copy_and_link(modules: Path, source: Path) -> None:
    for args in ((), ("--link",)):
        install(modules, *args)
        assert install(modules, "--uninstall") == 0
        assert left(modules) == ["mgr_module.py"]
    assert install(modules, "--uninstall") == 0
    assert (source / "module.py").exists()


def test_check_tells_versions_apart(modules: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(modules, "--check") == 1
    assert "not installed" in capsys.readouterr().err
    install(modules)
    capsys.readouterr()
    assert install(modules, "--check") == 0
    assert f"is vdisk {__version__} (" in capsys.readouterr().out
    with (source / "service/core.py").open("a") as file:
        file.write("# newer\n")
    assert install(modules, "--check") == 0
    assert "another version" in capsys.readouterr().out


def test_check_finds_files_that_the_mgr_can_not_read(modules: Path, source: Path) -> None:
    install(modules)
    (modules / "vdisk/module.py").chmod(0o600)
    (modules / "vdisk/model").chmod(0o700)
    problems = checks.check(modules / "vdisk").problems
    assert [problem.split(":")[0] for problem in problems] == ["vdisk/model", "vdisk/module.py"]


def test_check_warns_of_directories_that_the_mgr_can_not_enter(modules: Path, source: Path) -> None:
    install(modules)
    modules.chmod(0o700)
    assert any(str(modules) in warning for warning in checks.check(modules / "vdisk").warnings)


@pytest.mark.parametrize(
    "cmd",
    [
        "vdisk x name=a,type=CephString,req=false name=b,type=CephString",
        "vdisk x name=a,type=CephBool",
        "vdisk x name=a,type=CephStrin",
        "vdisk x name=a,type=CephString name=a,type=CephString",
        "vdisk x name=a,type=CephString y",
        "rbd x",
    ],
)
def test_signatures_that_break_the_ceph_tool_are_found(cmd: str) -> None:
    assert probe.signature_problems({"cmd": cmd, "desc": "does it", "perm": "r"})


def test_signatures_of_the_module_are_sound() -> None:
    found = checks.check(SOURCE)
    assert found.problems == ()
    assert found.commands > 10
    assert found.options > 5


def answers(**known: str) -> places.Run:
    """A way of running programs in which `ceph_conf` and `ceph` print what is given."""

    def run(argv: Sequence[str]) -> str:
        return known.get(argv[0].replace("-", "_"), "")

    return run


def test_directory_comes_from_ceph_conf_then_cluster_then_packages(modules: Path, tmp_path: Path) -> None:
    other, third = tmp_path / "other", tmp_path / "third"
    for path in (other, third):
        path.mkdir()
        (path / "mgr_module.py").touch()
    known = [tmp_path / "none", third]
    assert places.module_directory(answers(ceph_conf=str(modules), ceph=str(other)), known) == modules
    assert places.module_directory(answers(ceph=str(other)), known) == other
    assert places.module_directory(answers(ceph="/nonexistent"), known) == third
    with pytest.raises(InstallError, match="--path"):
        places.module_directory(answers(), [])


def test_packages_are_told_by_dpkg_and_by_rpm(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path, real = tmp_path / "link/module.py", tmp_path / "real/module.py"

    def dpkg(argv: Sequence[str]) -> str:
        lines = {str(real): f"diversion by other from: {real}\nceph-mgr-vdisk: {real}"}
        return lines.get(argv[-1], "") if argv[0] == "dpkg-query" else ""

    def rpm(argv: Sequence[str]) -> str:
        return "ceph-mgr-vdisk" if argv[0] == "rpm" and argv[-1] == str(path) else ""

    assert places.package_of(real, dpkg) == "ceph-mgr-vdisk"
    assert places.package_of(path, dpkg) == "ceph-mgr-vdisk", "through the link"
    assert places.package_of(path, rpm) == "ceph-mgr-vdisk"
    assert places.package_of(real, rpm) == ""
    assert places.package_of(tmp_path / "module.py") == "", "this machine's own"
    assert places.package_of(Path("/usr/bin/env")) != ""


def test_programs_that_fail_or_do_not_exist_say_nothing() -> None:
    assert places.run_quietly(["echo", "there"]) == "there"
    assert places.run_quietly(["false"]) == ""
    assert places.run_quietly(["no-such-program-anywhere"]) == ""


def test_running_mgr_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12/comm").write_text("ceph-mon\n")
    assert not places.mgr_runs(tmp_path)
    (tmp_path / "12/comm").write_text("ceph-mgr\n")
    assert places.mgr_runs(tmp_path)


# -- the dashboard ---------------------------------------------------------------------------------------------------


@pytest.fixture
def controllers(modules: Path) -> Path:
    """The directory of the dashboard's controllers."""
    path = modules / "dashboard/controllers"
    path.mkdir(parents=True)
    return path


def test_the_dashboard_gets_a_file_and_loses_it(
    modules: Path, source: Path, controllers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install(modules) == 0
    found = controllers / "vdisk.py"
    assert found.read_text() == (SOURCE.parent / "vdisk_install/controller.py").read_text()
    assert found.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in controllers.iterdir()] == ["vdisk.py"]
    assert "shows it at /vdisk" in capsys.readouterr().out
    assert install(modules) == 0
    assert "nothing was changed" in capsys.readouterr().out
    found.write_text(found.read_text() + "# an older version\n")
    assert install(modules, "--check") == 0
    assert "does not show it" in capsys.readouterr().out
    assert install(modules) == 0
    assert "added to the dashboard" in capsys.readouterr().out
    (controllers / "__pycache__").mkdir()
    (controllers / "__pycache__/vdisk.cpython-311.pyc").touch()
    assert install(modules, "--uninstall") == 0
    assert left(controllers) == ["__pycache__"]
    assert left(controllers / "__pycache__") == []


def test_somebody_elses_controller_stays(
    modules: Path, source: Path, controllers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (controllers / "vdisk.py").write_text("# mine\n")
    assert install(modules) == 1
    assert "not vdisk's" in capsys.readouterr().err
    assert not (modules / "vdisk").exists(), "nothing was changed"
    assert install(modules, "--uninstall") == 1
    assert (controllers / "vdisk.py").read_text() == "# mine\n"


def test_a_link_among_the_controllers_is_replaced_by_a_file(modules: Path, source: Path, controllers: Path) -> None:
    (controllers / "vdisk.py").symlink_to(SOURCE.parent / "vdisk_install/controller.py")
    assert install(modules) == 0
    assert not (controllers / "vdisk.py").is_symlink()

"""vdisk's file among the controllers of the Ceph dashboard, which loads every regular file there when it starts."""

from __future__ import annotations

import os
from pathlib import Path

from vdisk_install.errors import InstallError

_NAME = "vdisk.py"
#: Files whose name begins so are not loaded.
_PARTIAL = "_vdisk.partial"
_HEAD = '"""vdisk in the Ceph dashboard'


def controllers(modules: Path) -> Path | None:
    """Return the directory of the dashboard's controllers beside the other mgr modules; None without a dashboard."""
    found = modules / "dashboard" / "controllers"
    return found if found.is_dir() else None


def source() -> str:
    """Return what the file has to hold."""
    return Path(__file__).with_name("controller.py").read_text(encoding="utf-8")


def refuse_foreign_controller(modules: Path) -> None:
    """Raise when somebody else's file is in the place."""
    target = _target(modules)
    if target is not None and os.path.lexists(target) and not _is_ours(target):
        raise InstallError(f"{target} exists and is not vdisk's: move it away first")


def put(modules: Path) -> bool:
    """Put the file in place, at once and readable for everybody; returns whether that changed anything."""
    target = _target(modules)
    if target is None or in_place(modules):
        return False
    refuse_foreign_controller(modules)
    partial = target.with_name(_PARTIAL)
    try:
        partial.write_text(source(), encoding="utf-8")
        partial.chmod(0o644)
        os.replace(partial, target)
    except OSError as error:
        raise InstallError(f"can't write to {target.parent}: {error.strerror}") from error
    return True


def take(modules: Path) -> bool:
    """Take the file away, with what Python compiled of it; returns whether it was there."""
    target = _target(modules)
    if target is None or not os.path.lexists(target):
        return False
    if not _is_ours(target):
        raise InstallError(f"{target} is not vdisk's: it stays")
    target.unlink()
    for compiled in target.parent.glob("__pycache__/vdisk.*.pyc"):
        compiled.unlink(missing_ok=True)
    return True


def in_place(modules: Path) -> bool:
    """Tell whether the dashboard has exactly this version's file, as a regular file: it loads no links."""
    target = _target(modules)
    if target is None or target.is_symlink() or not target.is_file():
        return False
    return target.read_text(encoding="utf-8", errors="replace") == source()


def _target(modules: Path) -> Path | None:
    directory = controllers(modules)
    return None if directory is None else directory / _NAME


def _is_ours(target: Path) -> bool:
    try:
        return target.read_text(encoding="utf-8", errors="replace").startswith(_HEAD)
    except OSError:
        return False

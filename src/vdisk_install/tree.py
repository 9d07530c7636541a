"""Putting the module in place, and taking it away, so that at every moment a whole version is there or none.

Everything is prepared in a directory beside the target. The module is one level further down in it, where a mgr that
looks for modules just then does not see it.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vdisk_install.errors import InstallError
from vdisk_install.places import MODULE

_STAGING = ".vdisk-install."
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def is_vdisk(path: Path) -> bool:
    """Tell whether a directory (or what a link leads to) is a version of this module."""
    try:
        head = (path / "__init__.py").read_text(errors="replace")[:200]
    except OSError:
        return False
    return head.startswith('"""vdisk') and (path / "module.py").is_file()


def refuse_foreign(target: Path) -> None:
    """Raise when something is in the target's place that is not ours to replace or remove."""
    if not os.path.lexists(target):
        return
    if target.is_symlink() and not target.exists():
        raise InstallError(f"{target} is a link to {os.readlink(target)}, which does not exist: remove the link first")
    if not is_vdisk(target):
        raise InstallError(f"{target} exists and is not the vdisk module: move it away first")


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Yield a fresh directory beside the target, removed afterwards; one installation at a time."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InstallError(f"{directory}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InstallError(f"another vdisk-install is at work in {directory}") from None
        # What a run that was killed left behind; under the lock nobody else's.
        for path in directory.glob(f"{_STAGING}*"):
            shutil.rmtree(path, ignore_errors=True)
        try:
            work = Path(tempfile.mkdtemp(prefix=_STAGING, dir=directory))
        except OSError as error:
            raise InstallError(f"can't write to {directory}: {error.strerror}") from error
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def copy_module(source: Path, target: Path) -> int:
    """Copy the Python files of a package, readable for everybody whatever the umask; returns how many."""
    count = 0
    for path in [source, *sorted(source.rglob("*"))]:
        if "__pycache__" in path.parts:
            continue
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
            place.chmod(0o755)
        elif path.is_file():
            shutil.copyfile(path, place)
            place.chmod(0o644)
            count += 1
    return count


def same_tree(one: Path, other: Path) -> bool:
    """Tell whether two packages hold the same files with the same content."""

    def content(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(root)): path.read_bytes() for path in files}

    return not other.is_symlink() and other.is_dir() and content(one) == content(other)


def swap_in(fresh: Path, target: Path) -> None:
    """Put ``fresh`` (a directory or link) in the target's place; what was there ends up where ``fresh`` was."""
    if not os.path.lexists(target):
        os.rename(fresh, target)
        return
    if _exchange(fresh, target):
        return
    # A file system that can't exchange: for an instant nothing is there, and on failure the old one returns.
    old = fresh.with_name("old")
    os.rename(target, old)
    try:
        os.rename(fresh, target)
    except BaseException:
        os.rename(old, target)
        raise


def take_away(target: Path, work: Path) -> None:
    """Remove the target at once: moved to ``work`` first, or unlinked if it is a link."""
    if target.is_symlink():
        target.unlink()
    else:
        os.rename(target, work / MODULE)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically (renameat2, Linux 3.15); False where the file system or libc can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(other))

"""A root that a test may change at will: a release's root below, and on top of it a layer that goes with the test."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import cli
from harness.releases import Release

Files = dict[str, tuple[int, int]]
"""Path below the root -> mode and size (0 for a directory)."""


@contextlib.contextmanager
def scratch_root(name: str, suite: str, below: Path) -> Iterator[Release]:
    """Yield a release whose root has the content of `below` and can be changed without changing that (overlayfs)."""
    with tempfile.TemporaryDirectory(prefix="vdisk-root-") as work:
        upper, other, root = (Path(work) / part for part in ("upper", "work", "root"))
        for path in (upper, other, root):
            path.mkdir()
        # Else the directory's mode would become that of the root.
        upper.chmod(0o755)
        layers = f"lowerdir={below.resolve()},upperdir={upper},workdir={other}"
        cli.run(["/bin/mount", "-t", "overlay", "overlay", "-o", layers, str(root)])
        try:
            yield Release(name=name, suite=suite, native=False, root=root)
        finally:
            # Lazily: the last process of a cluster that was just killed may hold it for a moment.
            subprocess.run(["/bin/umount", "--lazy", str(root)], check=True)


def inside(release: Release, *argv: str, check: bool = True, timeout: float = 120) -> cli.Result:
    """Run a program in the release's root to its end, without questions."""
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    return cli.run(release.command(argv), shown=argv, check=check, timeout=timeout, env=env)


def files(release: Release, *tops: str) -> Files:
    """Return everything below the directories `tops` of the release's root."""
    found: Files = {}
    for top in tops:
        for path in release.path(top).rglob("*"):
            info = path.lstat()
            found[f"{top}/{path.relative_to(release.path(top))}"] = (info.st_mode, 0 if path.is_dir() else info.st_size)
    return found

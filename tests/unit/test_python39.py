"""The module on Python 3.9, which the official container images of Reef, Squid and Tentacle have (doc/install.md).

`make lint` looks for what came later than 3.9; where this machine has a Python 3.9, here it runs the module.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

_STORY = """
import importlib, pkgutil, sys
sys.dont_write_bytecode = True
sys.path[:0] = sys.argv[1:]
from vdisk_install import cli, probe
told = probe.probe(sys.argv[1])
assert not told["problems"] and told["commands"], told
import vdisk
for found in pkgutil.walk_packages(vdisk.__path__, "vdisk."):
    importlib.import_module(found.name)
from fake.cluster import FakeCluster
from fake import drive
from vdisk.model.timing import parse_start_time
fake = FakeCluster()
drive.restored(fake)
for make in (drive.cloned, drive.adopted, drive.scheduled, drive.reverted, drive.removed_with_temp):
    fake = FakeCluster()
    make(fake, True) if make is drive.removed_with_temp else make(fake)
assert parse_start_time("00:30 +0200") == parse_start_time("22:30Z") == 22 * 60 + 30
print("sound")
"""


def python39() -> str | None:
    """Return a Python 3.9 that runs, or None."""
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9"))
    for path in (shutil.which("python3.9"), *map(str, pyenv)):
        if path and subprocess.run([path, "-V"], capture_output=True).returncode == 0:
            return path
    return None


def test_the_module_runs_on_python_39() -> None:
    python = python39()
    if python is None:
        pytest.skip("there is no python3.9 on this machine")
    argv = [python, "-I", "-c", _STORY, str(REPO / "src"), str(REPO / "tests")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("sound\n", 0), done.stderr

"""Other versions of the module: an earlier one from the repository's history, and a later one made of this one."""

import shutil
import subprocess
from pathlib import Path

from harness.genesis import SOURCE
from harness.releases import REPO

LATER = "99.0.0"
#: The first version whose module loads.
EARLIEST = "3141dcf"

#: What a later version might change: (file, what is there, what is in its place), and files of its own.
_CHANGES = (
    ("model/version.py", 'VERSION = "', f'VERSION = "{LATER}"  # '),
    # A field that decides about steps, as every field of a request may.
    ("lifecycle/volume_resize.py", '    own_name: str = ""\n', '    own_name: str = ""\n    note: str = ""\n'),
    ("lifecycle/volume_resize.py", "import Answer, GrowImage", "import Answer, AwaitChildren, GrowImage"),
    (
        "lifecycle/volume_resize.py",
        "        return Plan(self, (GrowImage(",
        "        first = (AwaitChildren(self.where, image.id),) if self.note else ()\n"
        "        return Plan(self, (*first, GrowImage(",
    ),
    # An option that leads to it, and something that is told beside every request.
    ("module.py", '        Option(\n            "metrics_address"',
     '        Option("resize_note", type="str", default=""),\n        Option(\n            "metrics_address"'),
    ("engine/operation.py", "                **self.beside,\n", '                **self.beside, "priority": 7,\n'),
    (
        "commands/handlers.py",
        "self._create(args, self._service.resize_volume(self._access.find(Kind.VOLUME, ref), size))",
        "self._create(args, dataclasses.replace("
        "self._service.resize_volume(self._access.find(Kind.VOLUME, ref), size), "
        'note=self._default_keep("resize_note") if ref.name == self._default_keep("resize_note") else ""))',
    ),
    ("commands/handlers.py", "from collections.abc", "import dataclasses\nfrom collections.abc"),
)  # fmt: skip
_FOLD = '''
"""A kind of operation that earlier versions do not know."""

from dataclasses import dataclass
from typing import ClassVar

from .volume_resize import ResizeVolume


@dataclass(frozen=True)
class FoldVolume(ResizeVolume):
    """Grows a volume once nothing hangs on it."""

    kind: ClassVar[str] = "volume fold"
'''
_ADDED = {
    "lifecycle/registry.py": (
        "\nfrom .volume_fold import FoldVolume\nREQUESTS = {**REQUESTS, FoldVolume.kind: FoldVolume}\n"
    ),
    "commands/table.py": (
        '\nCOMMANDS += (Command("volume fold", "volume_fold", "Grow a volume later", '
        '(_VOLUME, Argument("size", "size", required=True, help="bytes")), changes=True),)\n'
    ),
    "commands/handlers.py": """

def _volume_fold(self, args):
    from ..lifecycle.volume_fold import FoldVolume

    found = self._access.find(Kind.VOLUME, parse_volume_ref(args["volume"]))
    grown = self._service.resize_volume(found, parse_size(args["size"]))
    return self._create(args, FoldVolume(grown.where, grown.name, grown.uuid, grown.size, grown.own_name, "later"))


Handlers.volume_fold = _volume_fold
""",
}


def later(directory: Path) -> Path:
    """Make a later version of the module in ``directory``; return the module's directory.

    It has another kind of operation (``volume fold``), another field in an existing one (``note`` of a resize, of the
    volume that the option ``resize_note`` names), something beside the request in every intent, and a command and an
    option more.
    """
    module = directory / "vdisk"
    shutil.copytree(SOURCE / "vdisk", module, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in _CHANGES:
        text = (module / name).read_text()
        assert old in text, f"{name}: {old}"
        (module / name).write_text(text.replace(old, new, 1))
    (module / "lifecycle/volume_fold.py").write_text(_FOLD.lstrip())
    for name, more in _ADDED.items():
        (module / name).write_text((module / name).read_text() + more)
    return module


def earliest(directory: Path) -> Path | None:
    """Take the first version out of the repository's history; None where that is not there."""
    argv = ["git", "-C", str(REPO), "archive", "--format=tar", EARLIEST, "src/vdisk"]
    try:
        found = subprocess.run(argv, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    directory.mkdir()
    subprocess.run(["tar", "--extract", "--directory", str(directory)], input=found.stdout, check=True)
    return directory / "src/vdisk"

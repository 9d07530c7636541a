"""Steps of the node's work, at which a test can kill the driver.

``VDISK_CSI_FAILPOINT=<step>:<before|after>`` has the driver kill itself (SIGKILL) there; ``@<file>`` reads that from a
file at each step, so that it can be changed while the driver runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "VDISK_CSI_FAILPOINT"
STEPS = (
    "write-record", "start-fuse", "attach-loop", "map-device", "begin-format", "format", "end-format", "check",
    "mount", "grow", "grow-unmounted", "record-target", "make-target", "bind", "bind-read-only", "unbind",
    "remove-target", "drop-target", "unmount", "detach-loop", "stop-fuse", "unmap-device", "remove-record",
)  # fmt: skip
"""Names of all steps."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def step(name: str, about: str = "") -> Iterator[None]:
    """Surround one step, which a crash may cut anywhere."""
    _log.info("step", extra={"step": name, "about": about})
    _reached(f"{name}:before")
    yield
    _reached(f"{name}:after")


def _reached(point: str) -> None:
    wanted = os.environ.get(VARIABLE, "")
    if wanted.startswith("@"):
        try:
            wanted = Path(wanted[1:]).read_text().strip()
        except OSError:
            return
    if wanted == point:
        os.kill(os.getpid(), signal.SIGKILL)

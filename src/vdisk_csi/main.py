"""Where ``vdisk-csi`` begins: says what is missing, if something is, before anything that needs it is imported."""

from __future__ import annotations

import importlib.util
import sys

#: Module -> where it comes from.
_NEEDED = {
    "rados": "Debian's package python3-rados, or python3-rados of Ceph's own packages",
    "grpc": "pip install 'vdisk[csi]'",
    "google.protobuf": "pip install 'vdisk[csi]'",
    "prometheus_client": "pip install 'vdisk[csi]'",
}


def missing(needed: dict[str, str] = _NEEDED) -> list[str]:
    """Return what is not there and where it comes from."""
    found = []
    for name, source in needed.items():
        try:
            there = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            found.append(f"the Python module {name} is missing: {source}")
    return found


def main() -> int:
    """Run the driver; returns the exit code, 2 when it can't start."""
    problems = missing()
    if problems:
        print("\n".join(f"vdisk-csi: {problem}" for problem in problems), file=sys.stderr)
        return 2
    from .cli import main as run

    return run()

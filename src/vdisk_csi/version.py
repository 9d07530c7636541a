"""The driver's version: that of the distribution."""

from importlib import metadata


def _installed() -> str:
    try:
        return metadata.version("vdisk")
    except metadata.PackageNotFoundError:
        return "0.0.0+source"


VERSION = _installed()

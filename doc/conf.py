"""How Sphinx makes the documentation; `make docs` runs it."""

import re
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent

project = "vdisk"
author = "The vdisk developers"
copyright = f"{author}, Apache-2.0"
_VERSION = re.search(r'__version__ = "([^"]+)"', (REPO / "src/vdisk_install/__init__.py").read_text(encoding="utf-8"))
assert _VERSION is not None
release = version = _VERSION[1]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "requirements.txt"]
# Headings are linked to from other pages.
myst_heading_anchors = 4
html_theme = "alabaster"
html_theme_options = {"description": "CSI-grade virtual disks as a native service of Ceph", "fixed_sidebar": True}
html_show_sourcelink = False
nitpicky = True

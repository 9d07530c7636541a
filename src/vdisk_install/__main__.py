"""``python -m vdisk_install``: the same as ``vdisk-install``."""

import sys

from vdisk_install.cli import main

if __name__ == "__main__":
    sys.exit(main())

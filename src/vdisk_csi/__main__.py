"""``python -m vdisk_csi``."""

import sys

from .cli import main

sys.exit(main())

"""``python -m vdisk_csi``."""

import sys

from .main import main

sys.exit(main())

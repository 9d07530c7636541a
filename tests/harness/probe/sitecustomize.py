"""Has a manager's Python write the stacks of its threads to the file `VDISK_STACKS` whenever it gets SIGUSR2."""

import faulthandler
import os
import signal

if "VDISK_STACKS" in os.environ:
    # Kept open, and unbuffered because the handler writes to the descriptor when no Python code can run any more.
    _stacks = open(os.environ["VDISK_STACKS"], "ab", buffering=0)  # noqa: SIM115
    faulthandler.register(signal.SIGUSR2, file=_stacks, all_threads=True)

"""`python -m transcripts PAGE...` types a page's commands on a new cluster and writes what came back into the page."""

import argparse
import signal
import sys
from pathlib import Path

from harness.releases import ensure_root, native_release

from .session import Session, fresh_cluster, ready, rewritten


def main() -> int:
    """Run the command line; return the exit code."""
    # As Ctrl-C does: the cluster has to be stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    native = native_release()
    parser = argparse.ArgumentParser(prog="python -m transcripts", description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--release", default=native.name if native else "pacific")
    parser.add_argument("--only-marked", action="store_true", help="only what a page marks for the release")
    parser.add_argument("--check", action="store_true", help="write nothing, only say what differs")
    args = parser.parse_args()
    ensure_root(args.release)
    differ = 0
    for page in args.pages:
        text = page.read_text()
        with fresh_cluster(args.release) as cluster:
            ready(cluster)
            session = Session(cluster, args.only_marked)
            played = []
            for entry in session.play(text):
                played.append(entry)
                if not entry.good:
                    print(f"{page}: differs\n{entry}\n", flush=True)
        wrong = [entry for entry in played if not entry.good]
        print(f"{page}: {len(played)} commands, {len(wrong)} that show something else")
        differ += len(wrong)
        if not args.check:
            page.write_text(rewritten(text, played, session.known))
    return 1 if args.check and differ else 0


if __name__ == "__main__":
    sys.exit(main())

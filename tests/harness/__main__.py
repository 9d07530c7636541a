"""Clusters by hand: `python -m harness up`, look around with plain `ceph` and `rbd`, `python -m harness down`."""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from harness import config
from harness.cluster import Cluster, ClusterFailed
from harness.layout import Layout
from harness.releases import SUITES, ReleaseUnavailable, ensure_root, native_release


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    up = commands.add_parser("up", help='start a cluster that runs until "down"')
    up.add_argument("--release", default="", choices=["", *SUITES], help="default: this machine's own")
    up.add_argument("--dir", type=Path, help="the directory to make for it")
    up.add_argument("--mons", type=int, default=1)
    up.add_argument("--mgrs", type=int, default=1)
    up.add_argument("--osds", type=int, default=1)
    up.add_argument("--store", default="memstore", choices=["memstore", "bluestore"])
    up.add_argument("--pool", nargs="*", default=["rbd"], help="pools to create, ready for RBD images")
    up.add_argument("--conf", nargs="*", default=[], metavar="OPTION=VALUE", help="more options for ceph.conf")
    up.add_argument("--fast", action="store_true", help="monitors that decide at once, as most tests have them")
    up.add_argument("--no-enable", action="store_true", help="do not enable the vdisk module")

    down = commands.add_parser("down", help="stop a cluster and remove its directory")
    down.add_argument("--dir", type=Path, help="its directory; not needed if only one runs")
    down.add_argument("--all", action="store_true", help='all that "up" started')

    status = commands.add_parser("status", help="what runs where")
    status.add_argument("--dir", type=Path)

    env = commands.add_parser("env", help='print what a shell needs: eval "$(python -m harness env)"')
    env.add_argument("--dir", type=Path)

    roots = commands.add_parser("roots", help="make the roots of releases that this machine does not have")
    roots.add_argument("releases", nargs="*", default=list(SUITES), help="default: all")
    return parser


def _registry() -> Path:
    """Return the directory that holds a link to every cluster that `up` started."""
    path = Path(tempfile.gettempdir()) / "vdisk-clusters"
    path.mkdir(exist_ok=True)
    return path


def _known() -> list[Path]:
    found = []
    for link in sorted(_registry().iterdir()):
        if (link / "cluster.json").exists():
            found.append(link.resolve())
        else:
            link.unlink()
    return found


def _choose(where: Path | None) -> Path:
    if where is not None:
        return where
    known = _known()
    if len(known) != 1:
        which = ", ".join(map(str, known)) or "none"
        raise SystemExit(f"--dir is needed; running clusters: {which}")
    return known[0]


def _env_lines(layout: Layout) -> str:
    exports = {"CEPH_CONF": str(layout.conf)}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    return "\n".join([*lines, f'export PATH={shlex.quote(str(layout.bin))}:"$PATH"'])


def _up(args: argparse.Namespace) -> None:
    native = native_release()
    release = args.release or (native.name if native else "pacific")
    ensure_root(release)
    conf: dict[str, config.ConfValue] = dict(config.FAST) if args.fast else {}
    conf.update(item.split("=", 1) for item in args.conf)
    cluster = Cluster(
        release,
        mons=args.mons,
        mgrs=args.mgrs,
        osds=args.osds,
        store=args.store,
        conf=conf,
        module=not args.no_enable,
        where=args.dir,
        detached=True,
    )
    cluster.start()
    cluster.keep = True
    (_registry() / cluster.fsid).symlink_to(cluster.dir)
    for pool in args.pool:
        cluster.create_pool(pool)
    cluster.close_handles()
    here = f"{shlex.quote(sys.executable)} -m harness"
    print(
        f"{release} cluster in {cluster.dir}\n\n"
        f'    eval "$({here} env --dir {cluster.dir})"   # then plain ceph, rbd and rados reach it\n'
        f"    {cluster.layout.bin}/ceph -s                # or without\n"
        f"    tail -f {cluster.layout.logs}/ceph-mgr.*.log\n"
        f"    {here} down --dir {cluster.dir}"
    )


def _down(args: argparse.Namespace) -> None:
    for where in _known() if args.all else [_choose(args.dir)]:
        if not Layout(where).state.exists():
            raise SystemExit(f"no cluster in {where}")
        cluster = Cluster.attach(where)
        cluster.stop()
        print(f"stopped {where}")
    _known()


def _status(args: argparse.Namespace) -> None:
    for where in [args.dir] if args.dir else _known():
        cluster = Cluster.attach(where)
        print(f"{where}: {cluster.release.name}, fsid {cluster.fsid}")
        for daemon in cluster.daemons():
            print(f"    {daemon.name:8} {'pid ' + str(daemon.pid) if daemon.running else 'not running'}")


def _env(args: argparse.Namespace) -> None:
    print(_env_lines(Layout(_choose(args.dir).resolve())))


def _roots(args: argparse.Namespace) -> None:
    for name in args.releases:
        release = ensure_root(name)
        print(f"{name}: {release.root or 'native'}")


def main() -> int:
    """Run the command line; return the exit code."""
    args = _parser().parse_args()
    actions = {"up": _up, "down": _down, "status": _status, "env": _env, "roots": _roots}
    try:
        actions[args.command](args)
    except (ReleaseUnavailable, ClusterFailed) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``vdisk-csi``: the command line, and the life of the process."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import logs, web
from .cluster import Identity as ClusterIdentity
from .config import DRIVER_NAME, STATE, Config
from .controller import Abilities
from .deadline import Deadline
from .groups import Groups, Support
from .identity import Identity, Readiness
from .metrics import Metrics
from .mgr import Clients
from .mounters import NoMounter, choose
from .node import Node
from .params import MOUNTERS
from .places import Places
from .server import BadEndpoint, Server, address_of
from .snapshots import Snapshots
from .tools import take_turn
from .version import VERSION
from .volumes import Volumes

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 10.0
_CLOSE_SECONDS = 2.0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(prog="vdisk-csi", description="CSI 1.12 driver for vdisk volumes")
    add = options.add_argument
    add("--controller", action="store_true", help="serve the Controller service")
    add("--node", action="store_true", help="serve the Node service")
    add("--endpoint", required=True, help="where to listen: unix:///path or tcp://host:port")
    add("--node-id", default="", help="id of this node; needed with --node")
    add("--driver-name", default=DRIVER_NAME, help="name of the driver (default: %(default)s)")
    add("--http-endpoint", default="", metavar="HOST:PORT", help="where to serve /metrics and /healthz")
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="default: %(default)s")
    add("--timeout", type=_seconds, default=60.0, help="longest time of a call, in seconds (default: %(default)s)")
    add("--version", action="version", version=VERSION)
    ceph = options.add_argument_group("the cluster", "what is not given comes from ceph.conf and the environment")
    ceph.add_argument("-c", "--conf", default="", help="ceph.conf")
    ceph.add_argument("--id", "--user", default="", dest="user", help="entity without 'client.' (default: admin)")
    ceph.add_argument("-n", "--name", default="", help="entity with its type, such as client.csi")
    ceph.add_argument("-k", "--keyring", default="", help="keyring file of the entity")
    ceph.add_argument("--keyfile", default="", help="file with the entity's bare key")
    ceph.add_argument("-m", "--mon-host", "--monitors", default="", dest="monitors", help="monitors, commas between")
    ceph.add_argument("--monitors-file", default="", help="file with the monitors, one a line or commas between")
    controller = options.add_argument_group("the controller")
    controller.add_argument(
        "--pool", action="append", default=[], metavar="POOL[/NAMESPACE]",
        help="what is listed (default: every pool for RBD); may be repeated. "
        "If there is just one, it is where volumes of StorageClasses without the parameter pool go",
    )  # fmt: skip
    controller.add_argument("--cluster-id", default="", help="what clusterID may be beside the fsid")
    controller.add_argument(
        "--mgr-timeout", type=_seconds, default=30.0,
        help="seconds that a manager may give no answer before a call is UNAVAILABLE (default: %(default)s)",
    )  # fmt: skip
    controller.add_argument(
        "--nodes-by-address", action="store_true",
        help="node ids are the nodes' addresses, so the watchers of an image tell where its volume is published",
    )  # fmt: skip
    node = options.add_argument_group("the node")
    node.add_argument(
        "--state-dir", type=Path,
        help="what has to survive the driver, on the node's own disk "
        f"(default: a directory below {STATE} for each node id and cluster)",
    )  # fmt: skip
    node.add_argument("--mounter", default="", choices=MOUNTERS, help="default: the first that the node can use")
    node.add_argument("--max-volumes-per-node", type=int, default=0, help="0: no limit but the node's own")
    return options


def parse(argv: Sequence[str] | None = None) -> tuple[Config, str]:
    """Return the configuration and the log level; ends the process when the command line makes no sense."""
    options = parser()
    args = options.parse_args(argv)
    if not (args.controller or args.node):
        options.error("give --controller, --node or both")
    if args.node and not args.node_id:
        options.error("--node needs --node-id")
    if len(args.node_id.encode()) > 192:
        options.error("--node-id is longer than 192 bytes")
    if args.user and args.name:
        options.error("give --id or --name, not both")
    if args.max_volumes_per_node < 0:
        options.error("--max-volumes-per-node is negative")
    try:
        address_of(args.endpoint)
        monitors = args.monitors
        if args.monitors_file:
            monitors = ",".join(Path(args.monitors_file).read_text(encoding="utf-8").split())
    except (BadEndpoint, OSError) as error:
        options.error(str(error))
    name = f"client.{args.user}" if args.user else args.name
    identity = ClusterIdentity(args.conf, name, args.keyring, args.keyfile, monitors)
    config = Config(
        endpoint=args.endpoint,
        controller=args.controller,
        node=args.node,
        driver_name=args.driver_name,
        identity=identity,
        timeout=args.timeout,
        mgr_timeout=args.mgr_timeout,
        cluster_id=args.cluster_id,
        pools=tuple(dict.fromkeys(args.pool)),
        nodes_by_address=args.nodes_by_address,
        node_id=args.node_id,
        state_dir=args.state_dir or default_state_dir(args.node_id, identity),
        mounter=args.mounter,
        max_volumes=args.max_volumes_per_node,
        http_endpoint=args.http_endpoint,
    )
    return config, args.log_level


def default_state_dir(node_id: str, identity: ClusterIdentity) -> Path:
    """Return a directory that no driver of another node id or cluster on this machine has."""
    key = hashlib.sha256("\0".join((node_id, identity.conf, identity.monitors)).encode()).hexdigest()[:8]
    return STATE / f"{re.sub(r'[^A-Za-z0-9.-]', '_', node_id)[:64]}-{key}"


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    metrics = Metrics()
    clients = Clients(config.identity, config.mgr_timeout, metrics)
    metrics.observe_pending(clients.pending)
    readiness = Readiness(clients.of)
    node = None
    if config.node:
        take_turn(config.state_dir / "lock")
        node = Node(config, clients, choose(config.mounter))

    async def ready(deadline: Deadline) -> bool:
        return await readiness(deadline) if config.controller else True

    server = Server(config.timeout, metrics)
    support = Support(clients)
    server.add("Identity", [Identity(config, ready, support)])
    if config.controller:
        places = Places()
        volumes = Volumes(config, clients, places)
        server.add("Controller", [Abilities(), volumes, Snapshots(config, clients, places, volumes)])
        server.add("GroupController", [Groups(clients, volumes, support)])
    if node is not None:
        server.add("Node", [node])
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    http = web.serve(config.http_endpoint, metrics, ready) if config.http_endpoint else None
    address = address_of(config.endpoint)
    await server.start(address)
    _log.info("serving", extra={"endpoint": config.endpoint, "controller": config.controller, "node": config.node})
    await stop.wait()
    _log.info("stopping")
    await server.stop(_GRACE_SECONDS)
    if http is not None:
        http.shutdown()
    await clients.close(_CLOSE_SECONDS)
    if address.startswith("unix:"):
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the driver; returns the exit code, 2 when it can't start."""
    config, level = parse(argv)
    logs.setup(level)
    try:
        asyncio.run(run(config))
    except (BadEndpoint, NoMounter) as error:
        print(f"vdisk-csi: {error}", file=sys.stderr)
        return 2
    _log.info("stopped")
    logging.shutdown()
    # Threads may be inside of librados, waiting for a manager: they must not hold up the end.
    sys.stdout.flush()
    os._exit(0)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("not between 0 and 3600 seconds")
    return value

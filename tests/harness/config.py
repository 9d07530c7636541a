"""The ceph.conf of a test cluster: small, quick to start, and HEALTH_OK."""

from collections.abc import Mapping

from harness.layout import Layout

ConfValue = str | int | float | bool | None
Conf = Mapping[str, ConfValue]
"""Option -> value. `option` goes to [global], `section:option` to that section; None takes a default away again."""

FAST: Conf = {"paxos_propose_interval": 0.05, "paxos_min_wait": 0.01}
"""Monitors that decide at once: a snapshot costs milliseconds in place of a second. For tests that measure nothing."""


def _defaults(layout: Layout, fsid: str, mon_host: str, store: str, modules: str) -> dict[str, ConfValue]:
    return {
        "fsid": fsid,
        "mon_host": mon_host,
        "public_addr": "127.0.0.1",
        "cluster_addr": "127.0.0.1",
        "run_dir": str(layout.sockets),
        "crash_dir": str(layout.crash),
        "pid_file": "",
        "auth_allow_insecure_global_id_reclaim": False,
        # Without one, daemons write to the terminal as well.
        "log_to_stderr": False,
        "err_to_stderr": True,
        "log_file": str(layout.logs / "ceph-$name.log"),
        # Small: one copy of everything, pools of a few placement groups that stay as they were made.
        "osd_pool_default_size": 1,
        "osd_pool_default_min_size": 1,
        "osd_pool_default_pg_num": 8,
        "osd_pool_default_pg_autoscale_mode": "off",
        "osd_crush_chooseleaf_type": 0,
        "mon_allow_pool_size_one": True,
        "mon_allow_pool_delete": True,
        "mon_max_pg_per_osd": 1000,
        "mon_pg_warn_min_per_osd": 0,
        "mon_warn_on_pool_no_redundancy": False,
        "mon_warn_on_insecure_global_id_reclaim": False,
        "mon_warn_on_insecure_global_id_reclaim_allowed": False,
        "mon_debug_no_require_bluestore_for_ec_overwrites": True,
        # The machine's disk may be rather full: not the cluster's concern.
        "mon:mon_data_avail_warn": 1,
        "mon:mon_data_avail_crit": 0,
        "mon:mon_initial_members": "",
        "mon:mgr_initial_modules": modules,
        "mon:mon_cluster_log_file": str(layout.logs / "cluster.log"),
        "mon:admin_socket": str(layout.sockets / "$name.asok"),
        "mgr:admin_socket": str(layout.sockets / "$name.asok"),
        "mgr:mgr_module_path": str(layout.modules),
        "mgr:mgr_data": str(layout.dir / "mgr-$id"),
        # Monitors forgive all managers when they find that they themselves slept for longer than the beacon grace less
        # the managers' tick. At the usual 5 s between looks, a grace of 5 s would never end.
        "mon:mon_tick_interval": 1,
        "mon:mon_cluster_log_file_level": "info",
        # How soon the monitors hear that the manager is ready.
        "mgr_tick_period": 1,
        # At 2 the modules' INFO lines are in the log, at 5 and above DEBUG too.
        "mgr:debug_mgr": "2/5",
        "mon:mon_data": str(layout.dir / "mon-$id"),
        "osd:osd_data": str(layout.dir / "osd-$id"),
        "osd:admin_socket": str(layout.sockets / "$name.asok"),
        "osd:osd_objectstore": store,
        # A file as block device, and a memstore that survives an orderly restart.
        "osd:bluestore_block_size": 10 << 30,
        "osd:bluestore_fsck_on_mount": False,
        "osd:osd_memory_target": 1 << 30,
        "osd:memstore_device_bytes": 8 << 30,
        "osd:osd_fast_shutdown": store != "memstore",
        "osd:osd_max_object_name_len": 460,
        "osd:osd_max_object_namespace_len": 64,
        "client:keyring": str(layout.keys / "$name.keyring"),
        "client:log_file": str(layout.logs / "client.$pid.log"),
        "client:debug_ms": 0,
    }


def render(layout: Layout, *, fsid: str, mon_host: str, store: str, modules: str, extra: Conf | None = None) -> str:
    """Return the text of ceph.conf. `modules` is the list of manager modules that are on from the start."""
    merged = _defaults(layout, fsid, mon_host, store, modules)
    merged.update(extra or {})
    sections: dict[str, list[str]] = {"global": []}
    for key, value in merged.items():
        if value is None:
            continue
        section, _, option = key.rpartition(":")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        sections.setdefault(section or "global", []).append(f"\t{option} = {text}")
    return "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())

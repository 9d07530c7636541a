"""Every ``vdisk`` command, declared in one place; signatures, help and documentation come from here."""

from __future__ import annotations

from dataclasses import replace

from .arguments import Argument, Command

_POOL = Argument("pool_spec", required=True, help="pool[/namespace]")
_NAME = Argument("name", required=True, help="request name of the new volume")
_VOLUME = Argument("volume", required=True, help="handle, or pool[/namespace]/ and the image or request name")
_SNAPSHOT = Argument("snapshot", required=True, help="handle, pool[/namespace]/name or pool[/namespace]/image@name")
_GROUP = Argument("group", required=True, help="handle, or pool[/namespace]/name")
_TARGET = Argument("pool_spec", help="pool[/namespace] of the new volume; the source's own by default")
_SIZE = Argument("size", "size", help="bytes, or a number with a unit such as 10G; the source's own by default")
_PAGE = (
    Argument("limit", "int", help="at most that many"),
    Argument("marker", help="the last name already seen, of the trash the last id"),
)
_KEEP_FOR = Argument("keep_for", help="how long it can be undeleted, such as 7d; the option trash_keep_for otherwise")
_SCOPE = Argument("pool_spec", required=True, help="pool[/namespace], or a volume: handle or pool[/namespace]/name")
_START = Argument("start_time", help="time of day in UTC, or with an offset, that intervals count from, such as 03:00")
_LAYOUT = (
    Argument(
        "image_features", help="comma-separated RBD features; librbd's default otherwise, of a clone its source's"
    ),
    Argument("data_pool", help="pool for the data, such as an erasure-coded one"),
    Argument("object_size", "size", help="4K to 32M, a power of two; of a clone its source's by default"),
    Argument("stripe_unit", "size", help="bytes, with stripe_count"),
    Argument("stripe_count", "int", help="objects to stripe over, with stripe_unit"),
)
_OP = Argument("id", required=True, help="id of the operation")

COMMANDS: tuple[Command, ...] = (
    Command(
        "volume create",
        "volume_create",
        "Create an empty volume in <pool_spec> under the request name <name>. --size takes bytes or 10G; repeating the "
        "command answers with the same volume",
        (
            _POOL,
            _NAME,
            Argument("size", "size", required=True, help="bytes, or a number with a unit such as 10G"),
            *_LAYOUT,
        ),
        changes=True,
    ),
    Command(
        "volume restore",
        "volume_restore",
        "Make a new volume <name> with the content of <snapshot>. --size may be larger than the snapshot",
        (_SNAPSHOT, _NAME, _TARGET, _SIZE, *_LAYOUT),
        changes=True,
    ),
    Command(
        "volume clone",
        "volume_clone",
        "Make a new volume <name> with the present content of <volume>. --size may be larger than the source",
        (_VOLUME, _NAME, _TARGET, _SIZE, *_LAYOUT),
        changes=True,
    ),
    Command(
        "volume ls",
        "volume_ls",
        "List the volumes of <pool_spec> in the order of names",
        (_POOL, *_PAGE),
        columns=("name", "image", "size", "state", "created_at"),
    ),
    Command(
        "volume info",
        "volume_info",
        "Show a volume: size, used space, parents, and who has it open",
        (_VOLUME,),
    ),
    Command(
        "volume resize",
        "volume_resize",
        "Grow <volume> to <size>; volumes never shrink",
        (_VOLUME, Argument("size", "size", required=True, help="bytes, or a number with a unit such as 10G")),
        changes=True,
    ),
    Command(
        "volume flatten",
        "volume_flatten",
        "Copy what <volume> shares with its parents, so that it depends on none of them. rbd_support does it in the "
        "background, one at a time; the volume stays in use",
        (_VOLUME,),
        changes=True,
    ),
    Command(
        "volume revert",
        "volume_revert",
        "Bring <volume> back to its snapshot <snapshot>, unless somebody has it open. Name, handle and size stay; what "
        "the volume holds now goes to the trash as a volume of its own, from where 'trash restore' brings it back",
        (
            _VOLUME,
            _SNAPSHOT,
            Argument("keep_for", help="how long the former content can be undeleted; option revert_keep_for otherwise"),
        ),
        changes=True,
    ),
    Command(
        "volume rm",
        "volume_rm",
        "Delete <volume> unless somebody has it open. Its snapshots stay; its space is reclaimed in the background. "
        "With --keep-for 7d it can be undeleted until then",
        (_VOLUME, _KEEP_FOR),
        changes=True,
    ),
    Command(
        "snap create",
        "snap_create",
        "Snapshot any RBD image <image_spec> under the request name <snap_name>. Answers once it is ready to restore",
        (
            Argument("image_spec", required=True, help="pool[/namespace]/image"),
            Argument("snap_name", required=True, help="request name of the new snapshot"),
        ),
        changes=True,
    ),
    Command(
        "snap ls",
        "snap_ls",
        "List the snapshots of a pool, a namespace or one image (pool[/namespace]/image) in the order of names",
        (
            Argument("pool_spec", help="pool[/namespace], or pool[/namespace]/image"),
            Argument("image_spec", help="pool[/namespace]/image"),
            *_PAGE,
        ),
        columns=("name", "source.image", "image", "size", "state", "sealed", "created_at"),
    ),
    Command(
        "snap info",
        "snap_info",
        "Show a snapshot: its source, size, and whether it is ready and sealed",
        (_SNAPSHOT,),
    ),
    Command(
        "snap rm",
        "snap_rm",
        "Delete <snapshot>. Volumes restored from it stay; its space is reclaimed in the background. With --keep-for "
        "7d it can be undeleted until then",
        (_SNAPSHOT, _KEEP_FOR),
        changes=True,
    ),
    Command(
        "group snap create",
        "group_snap_create",
        "Snapshot <volumes>, which lie in one pool and namespace, at one moment under the request name <name>. Each "
        "gets a snapshot that can be restored by itself; they are removed together",
        (
            Argument("name", required=True, help="request name of the new group snapshot"),
            Argument("volumes", required=True, help="volumes, a comma between: handles, or pool[/namespace]/name"),
        ),
        changes=True,
    ),
    Command(
        "group snap ls",
        "group_snap_ls",
        "List the group snapshots of <pool_spec> in the order of names",
        (_POOL, *_PAGE),
        columns=("name", "uuid", "state", "created_at"),
    ),
    Command(
        "group snap info",
        "group_snap_info",
        "Show a group snapshot with its snapshots",
        (_GROUP,),
    ),
    Command(
        "group snap rm",
        "group_snap_rm",
        "Delete <group> and its snapshots. Volumes restored from them stay. With --keep-for 7d each of the snapshots "
        "can be undeleted until then, as one of its own",
        (_GROUP, _KEEP_FOR),
        changes=True,
    ),
    Command(
        "op ls",
        "op_ls",
        "List operations under way and those that ended lately, or only those with the given ids",
        (Argument("ids", help="ids of operations, a comma between; each is answered, with state unknown if need be"),),
        columns=("id", "kind", "target", "state", "step", "progress", "started_at"),
    ),
    Command("op info", "op_info", "Show an operation: its steps with timings, and what it waits for", (_OP,)),
    Command(
        "op cancel",
        "op_cancel",
        "Cancel an operation that has not answered yet; what it did is undone",
        (_OP,),
        changes=True,
    ),
    Command(
        "op retry",
        "op_retry",
        "Run an operation again now that stopped with an error or waits for its next try",
        (_OP,),
        changes=True,
    ),
    Command(
        "tree",
        "tree",
        "Draw who descends from whom in <pool_spec>, or in the family of a volume (handle or pool[/namespace]/name), "
        "with sizes, what holds each image and what would be freed with it",
        (Argument("pool_spec", required=True, help="pool[/namespace], or a volume"),),
        tree=True,
    ),
    Command(
        "adopt",
        "adopt",
        "Make the existing image <image_spec> the volume <name>, or its snapshot (image@snapshot) the snapshot <name>, "
        "without copying",
        (
            Argument("image_spec", required=True, help="pool[/namespace]/image, or pool[/namespace]/image@snapshot"),
            Argument("name", required=True, help="request name"),
        ),
        changes=True,
    ),
    Command(
        "release",
        "release",
        "Take <volume> out of the journal and leave its image as it is",
        (_VOLUME,),
        changes=True,
    ),
    Command(
        "trash ls",
        "trash_ls",
        "List what is in the trash of <pool_spec>: what can be undeleted with its handle, and other images",
        (_POOL, *_PAGE),
        columns=("id", "kind", "name", "image", "size", "deleted_at", "expires_at"),
    ),
    Command(
        "trash restore",
        "trash_restore",
        "Bring back what was deleted with --keep-for: image, journal entries and handle, under <new_name> if given",
        (
            Argument(
                "id", required=True, help="handle, id of the operation that deleted it, or pool[/namespace]/image id"
            ),
            Argument("new_name", help="another request name, for when the first is taken"),
        ),
        changes=True,
    ),
    Command(
        "trash purge",
        "trash_purge",
        "Delete for good what is kept in the trash of <pool_spec>: what has expired, or what the bounds given say",
        (
            _POOL,
            Argument("older_than", help="what was deleted at least so long ago, such as 3d"),
            Argument("keep_last", "int", help="all but the latest so many"),
            Argument("threshold", "float", help="the oldest, until less than this part (0 to 1) of the pool is used"),
        ),
        changes=True,
    ),
    Command(
        "check",
        "check",
        "Compare journal, images, snapshots, trash, tasks and operations of <pool_spec>. --repair does what cannot "
        "lose data; the rest needs --repair --finding <id>",
        (
            _POOL,
            Argument("finding", help="ids of findings of the last check, a comma between: look at these only"),
            Argument("repair", "bool", help="repair what cannot lose data, or the findings named"),
        ),
        changes=True,
    ),
    Command(
        "schedule add",
        "schedule_add",
        "Snapshot a volume, or every volume of a pool or namespace (later ones too), each <interval>: 30m, 1h, 2d. "
        "Without --keep nothing is ever removed; repeating it with another --keep changes that",
        (
            _SCOPE,
            Argument("interval", required=True, help="such as 30m, 1h or 2d"),
            _START,
            Argument("keep", help="how many to keep: numbers with n (any), h, d, w, m or y, such as 24h7d4w3m"),
        ),
        changes=True,
    ),
    Command(
        "schedule ls",
        "schedule_ls",
        "List snapshot schedules: all, those of a pool or namespace, or those that a volume has",
        (replace(_SCOPE, required=False),),
        columns=("target", "interval", "start_time", "keep", "created_at"),
    ),
    Command(
        "schedule rm",
        "schedule_rm",
        "Remove the schedules of a volume, or those for every volume of a pool or namespace; the snapshots stay",
        (_SCOPE, Argument("interval", help="only the one of this interval"), _START),
        changes=True,
    ),
    Command(
        "schedule status",
        "schedule_status",
        "Show how snapshot schedules do: next and last run, errors, how many snapshots were made and are held",
        (replace(_SCOPE, required=False),),
        columns=("target", "interval", "state", "last_run", "next_run", "made", "kept", "error"),
    ),
    Command("status", "status", "Show how busy vdisk is: operations by state, workers, what could not be read"),
    Command(
        "metrics",
        "metrics",
        "Show the figures of status, and counters and times of operations and their steps, in Prometheus' text format",
    ),
)

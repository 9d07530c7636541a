"""Every ``vdisk`` command, declared in one place; signatures, help and documentation come from here."""

from __future__ import annotations

from .arguments import Argument, Command

_POOL = Argument("pool_spec", required=True, help="pool[/namespace]")
_NAME = Argument("name", required=True, help="request name of the new volume")
_VOLUME = Argument("volume", required=True, help="handle, or pool[/namespace]/ and the image or request name")
_SNAPSHOT = Argument("snapshot", required=True, help="handle, pool[/namespace]/name or pool[/namespace]/image@name")
_TARGET = Argument("pool_spec", help="pool[/namespace] of the new volume; the source's own by default")
_SIZE = Argument("size", "size", help="bytes, or a number with a unit such as 10G; the source's own by default")
_PAGE = (
    Argument("limit", "int", help="at most that many"),
    Argument("marker", help="the last name already seen"),
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
            Argument("image_features", help="comma-separated RBD features; librbd's default for the pool otherwise"),
            Argument("data_pool", help="pool for the data, such as an erasure-coded one"),
            Argument("object_size", "size", help="4K to 32M, a power of two"),
            Argument("stripe_unit", "size", help="bytes, with stripe_count"),
            Argument("stripe_count", "int", help="objects to stripe over, with stripe_unit"),
        ),
        changes=True,
    ),
    Command(
        "volume restore",
        "volume_restore",
        "Make a new volume <name> with the content of <snapshot>. --size may be larger than the snapshot",
        (_SNAPSHOT, _NAME, _TARGET, _SIZE),
        changes=True,
    ),
    Command(
        "volume clone",
        "volume_clone",
        "Make a new volume <name> with the present content of <volume>. --size may be larger than the source",
        (_VOLUME, _NAME, _TARGET, _SIZE),
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
        "volume rm",
        "volume_rm",
        "Delete <volume> unless somebody has it open. Its snapshots stay; its space is reclaimed in the background",
        (_VOLUME,),
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
        "Delete <snapshot>. Volumes restored from it stay; its space is reclaimed in the background",
        (_SNAPSHOT,),
        changes=True,
    ),
    Command(
        "op ls",
        "op_ls",
        "List operations under way and those that ended lately",
        columns=("id", "kind", "target", "state", "step", "progress", "started_at"),
    ),
    Command("op info", "op_info", "Show an operation: its steps with timings, and what it waits for", (_OP,)),
    Command(
        "op cancel",
        "op_cancel",
        "Cancel an operation that has not answered yet; what it did is undone",
        (_OP,),
        changes=True,
        dry_run=False,
    ),
    Command(
        "op retry",
        "op_retry",
        "Run an operation again now that stopped with an error or waits for its next try",
        (_OP,),
        changes=True,
        dry_run=False,
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
    Command("status", "status", "Show how busy vdisk is: operations by state, workers, what could not be read"),
)

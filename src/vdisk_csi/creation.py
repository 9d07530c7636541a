"""Making volumes: empty ones, of snapshots, and of other volumes."""

from __future__ import annotations

from grpc import StatusCode

from .deadline import Deadline
from .errors import CsiError, invalid, out_of_range, required
from .ids import same
from .mgr import Client
from .params import VolumeParameters
from .proto import csi_pb2 as csi
from .shapes import Row, known
from .sizes import Range

#: What a volume's content comes from: the id, and the command that makes a volume of it.
Source = tuple[str, str]


def source_of(request: csi.CreateVolumeRequest) -> Source | None:
    """Return what a volume's content is to come from, None for an empty one."""
    if not request.HasField("volume_content_source"):
        return None
    kind = request.volume_content_source.WhichOneof("type")
    if kind == "snapshot":
        found = required(request.volume_content_source.snapshot.snapshot_id, "volume_content_source: snapshot_id")
        return known(found, "snapshot"), "volume restore"
    if kind == "volume":
        found = required(request.volume_content_source.volume.volume_id, "volume_content_source: volume_id")
        return known(found, "volume"), "volume clone"
    raise invalid("volume_content_source is neither a snapshot nor a volume")


async def create(
    client: Client,
    name: str,
    parameters: VolumeParameters,
    source: Source | None,
    asked: Range,
    deadline: Deadline,
) -> Row:
    """Have a volume made and return its row, with its ``size``."""
    spec = parameters.pool_spec
    size: int | None
    if source is None:
        if spec is None:
            raise invalid("parameter pool is missing")
        words, size, origin = "volume create", asked.size_or_default(), {}
    else:
        words, origin = source[1], {"snapshot" if source[1] == "volume restore" else "volume": source[0]}
        size = await _derived_size(client, source, asked, deadline)
    sized = {} if size is None else {"size": str(size)}
    place = {} if spec is None else {"pool_spec": spec}
    try:
        row = await client.change(words, deadline, name=name, **place, **sized, **origin, **parameters.layout)
    except CsiError as error:
        if error.code is not StatusCode.ALREADY_EXISTS:
            raise
        return await _existing(client, spec, name, source, asked, error, deadline)
    if size is None and row.get("size") is None:
        row = await client.send("volume info", deadline, volume=row["handle"])
    return row if size is None else {**row, "size": size}


async def _derived_size(client: Client, source: Source, asked: Range, deadline: Deadline) -> int | None:
    """Return the size of a clone; None for that of its source, which is looked at only if there is a limit."""
    size = asked.size()
    if size is not None or not asked.limit:
        return size
    words, argument = ("snap info", "snapshot") if source[1] == "volume restore" else ("volume info", "volume")
    row = await client.send(words, deadline, **{argument: source[0]})
    if row["size"] is not None and not asked.admits(row["size"]):
        raise out_of_range(f"the source has {row['size']} bytes, more than limit_bytes {asked.limit}")
    return None


async def _existing(
    client: Client,
    spec: str | None,
    name: str,
    source: Source | None,
    asked: Range,
    error: CsiError,
    deadline: Deadline,
) -> Row:
    """Return the volume that has the name already if only its size differs and is in the range, else raise."""
    if any(not differs.startswith("size ") for differs in error.details.get("differs", [])):
        raise error
    if spec is None:
        words, argument = ("snap info", "snapshot") if source and source[1] == "volume restore" else (
            "volume info", "volume"
        )  # fmt: skip
        found = await client.send(words, deadline, **{argument: source[0] if source else ""})
        spec = "/".join(part for part in (found["pool"], found["namespace"]) if part)
    row: Row = await client.send("volume info", deadline, volume=f"{spec}/{name}")
    if row["state"] != "ready" or row["size"] is None or not asked.admits(row["size"]):
        raise error
    there = (row["source"] or {}).get("handle")
    if (source is None) != (row["source"] is None) or (source is not None and not same(source[0], there or "")):
        raise error
    return row

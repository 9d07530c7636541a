"""Where volumes lie. An id does not tell the RADOS namespace, so the driver remembers what vdisk told it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .config import Config
from .deadline import Deadline
from .ids import parse_id
from .mgr import Client

_KEEP = 50_000


@dataclass(frozen=True)
class Place:
    """Pool, namespace and image of a volume."""

    pool: str
    namespace: str
    image: str

    @property
    def pool_spec(self) -> str:
        """Return ``pool[/namespace]``."""
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool

    @property
    def image_spec(self) -> str:
        """Return ``pool[/namespace]/image``."""
        return f"{self.pool_spec}/{self.image}"


class Places:
    """Places by volume id. A remembered one may be wrong by now: what it leads to is looked for, never trusted."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Place] = OrderedDict()

    def remember(self, row: Mapping[str, Any]) -> Place:
        """Note and return the place of a volume as vdisk shows it."""
        place = Place(row["pool"], row["namespace"], row["image"])
        self._known[row["handle"]] = place
        self._known.move_to_end(row["handle"])
        while len(self._known) > _KEEP:
            self._known.popitem(last=False)
        return place

    def forget(self, volume_id: str) -> None:
        """Drop what is remembered of a volume."""
        self._known.pop(volume_id, None)

    def known(self, volume_id: str) -> Place | None:
        """Return what is remembered of a volume."""
        return self._known.get(volume_id)

    async def find(self, client: Client, volume_id: str, deadline: Deadline) -> Place:
        """Return where a volume lies, asking vdisk if need be; NOT_FOUND when it does not exist."""
        found = self._known.get(volume_id)
        if found is not None:
            return found
        return self.remember({**await client.send("volume info", deadline, volume=volume_id), "handle": volume_id})


async def listed_specs(config: Config, client: Client, deadline: Deadline) -> list[str]:
    """Return the pool specs that lists show, in order: the configured ones, or every pool meant for RBD."""
    if config.pools:
        return sorted(config.pools)
    pools = await client.mon("osd pool ls", deadline, detail="detail")
    return sorted(pool["pool_name"] for pool in pools if "rbd" in pool.get("application_metadata", {}))


async def pool_of(client: Client, volume_id: str, deadline: Deadline) -> str | None:
    """Return the name of the pool that an id names; None when there is none."""
    parts = parse_id(volume_id)
    if parts is None:
        return None
    name: str | None = await client.blocking(lambda: client.cluster.pool_name(parts.pool_id), deadline, "the cluster")
    return name


def in_pool(specs: Sequence[str], pool: str) -> list[str]:
    """Return those of the pool specs that lie in a pool."""
    return [spec for spec in specs if spec.partition("/")[0] == pool]

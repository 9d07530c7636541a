"""Who descends from whom: nodes of a family of images, why each can't be freed, and what would be freed with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .objects import rfc3339
from .observed import Image, Location, Watcher

Key = tuple[int, str, str]
"""Pool id, namespace, image id."""


@dataclass(frozen=True)
class Node:
    """An image in its family. Sizes in bytes; ``used`` and ``exclusive`` are None where no object map tells.

    ``used`` is what the image's own objects take, ``exclusive`` that part of it which no snapshot of it shares.
    ``kept_until`` is the end of an undelete record, in seconds since the epoch. ``snapshots`` are those by hand.
    """

    where: Location
    image: Image
    kind: str
    name: str | None
    handle: str | None
    used: int | None
    exclusive: int | None
    watchers: tuple[Watcher, ...] | None = ()
    kept_until: float | None = None
    removal: str | None = None
    snapshots: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What the node is found by."""
        return self.where.pool_id, self.where.namespace, self.image.id

    @property
    def parent(self) -> Key | None:
        """The key of the image that it is a clone of."""
        link = self.image.parent
        return None if link is None else (link.pool_id, link.namespace, link.image_id)

    @property
    def children(self) -> tuple[Key, ...]:
        """The keys of its clones."""
        return tuple((child.pool_id, child.namespace, child.image_id) for child in self.image.children)

    @property
    def place(self) -> str:
        """The image's full name, for people."""
        return f"{self.where}/{self.image.name}" + (" (in the trash)" if self.image.trashed else "")


@dataclass(frozen=True)
class Family:
    """Images that belong together, by key."""

    nodes: Mapping[Key, Node] = field(default_factory=dict)

    def roots(self) -> list[Node]:
        """Return the nodes whose parent is not known, or that have none, in the order of places."""
        return sorted((n for n in self.nodes.values() if n.parent not in self.nodes), key=lambda node: node.place)

    def below(self, node: Node) -> list[Node]:
        """Return the clones of a node, in the order of places."""
        found = (n for n in self.nodes.values() if n.parent == node.key)
        return sorted(found, key=lambda child: child.place)

    def depth(self, node: Node) -> int:
        """Return how many parents a node has, as far as they are known; one that is not known counts."""
        depth, at = 0, node
        while at.parent is not None:
            depth += 1
            above = self.nodes.get(at.parent)
            if above is None or depth > len(self.nodes):
                break
            at = above
        return depth

    def held_by(self, node: Node) -> list[str]:
        """Say why a node's space can't be freed now; empty when nothing keeps it."""
        reasons = []
        if node.kind != "image" and not node.image.trashed:
            reasons.append(f"it is {node.kind} {node.name or node.handle}")
        elif not node.image.trashed:
            reasons.append("it is an image of its own")
        for watcher in node.watchers or ():
            reasons.append(f"in use by {watcher.address} (client.{watcher.client})")
        for key in node.children:
            child = self.nodes.get(key)
            reasons.append(f"clone {child.place if child is not None else f'image id {key[2]} in pool id {key[0]}'}")
        reasons += [f"snapshot {name}" for name in node.snapshots]
        if node.kept_until is not None:
            reasons.append(f"can be undeleted until {rfc3339(node.kept_until)}")
        return reasons

    def freed_with(self, node: Node) -> list[Node]:
        """Return what would go if a node were removed: itself unless clones hang on it, and removed ancestors that
        only it keeps."""
        if node.children or node.snapshots:
            return []
        gone = [node]
        while (key := gone[-1].parent) is not None:
            above = self.nodes.get(key)
            if above is None or not above.image.trashed or above.kept_until is not None or above.snapshots:
                break
            if set(above.children) - {found.key for found in gone}:
                break
            gone.append(above)
        return gone

    def to_dict(self, node: Node, path: Collection[Key] = ()) -> dict[str, Any]:
        """Return the JSON form of a node with its clones."""
        return {
            **self.facts(node),
            "image": node.image.name,
            "image_id": node.image.id,
            "pool": node.where.pool,
            "namespace": node.where.namespace,
            "kind": node.kind,
            "name": node.name,
            "handle": node.handle,
            "trashed": node.image.trashed,
            "size": node.image.size,
            "created_at": rfc3339(node.image.created_at),
            "removal": node.removal,
            "children": [self.to_dict(child, {*path, node.key}) for child in self.below(node) if child.key not in path],
        }

    def facts(self, node: Node) -> dict[str, Any]:
        """Return what ``info`` and ``tree`` both say of a node."""
        gone = self.freed_with(node)
        return {
            "used": node.used,
            "exclusive": node.exclusive,
            "depth": self.depth(node),
            "watchers": None if node.watchers is None else [watcher.to_dict() for watcher in node.watchers],
            "held_by": self.held_by(node),
            "frees": sum(found.used if found.used is not None else found.image.size for found in gone),
            "frees_with": [found.place for found in gone[1:]],
        }


def walk(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a node of the JSON form and all below it."""
    yield tree
    for child in tree["children"]:
        yield from walk(child)

"""Chains of clones: how many parents an image has, and who they are, through the trash and across pools."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Optional

from ..model.errors import NotFound
from ..model.observed import Image, Location, Parent

#: librbd itself follows 16 parents at most; beyond that something is wrong with the chain.
_MAX_DEPTH = 64

Key = tuple[int, str, str]
"""Pool id, namespace, image id."""
Load = Callable[[Location, str], Optional[Image]]
"""Returns the image of an id, in the trash or not."""


def depth(image: Image, load: Load, known: MutableMapping[Key, int]) -> int:
    """Return how many parents an image has.

    ``known`` are lengths that were found before, by image, and is added to. Chains only get shorter, by flattening, so
    what is known is never too small.
    """
    climbed: list[Key] = []
    at, base = image, 0
    while at.parent is not None and len(climbed) < _MAX_DEPTH:
        key = (at.parent.pool_id, at.parent.namespace, at.parent.image_id)
        if key in known:
            base = known[key] + 1
            break
        above = parent_of(at.parent, load)
        if above is None:
            base = 1
            break
        climbed.append(key)
        at = above
    for height, key in enumerate(reversed(climbed)):
        known[key] = base + height
    return base + len(climbed)


def ancestors(image: Image, load: Load) -> list[tuple[Parent, Image]]:
    """Return the parents of an image, nearest first, as far as they can be read."""
    found: list[tuple[Parent, Image]] = []
    while image.parent is not None and len(found) < _MAX_DEPTH:
        above = parent_of(image.parent, load)
        if above is None:
            break
        found.append((image.parent, above))
        image = above
    return found


def parent_of(link: Parent, load: Load) -> Image | None:
    """Return the image that a clone's link leads to; None when it, or its pool, is gone."""
    try:
        return load(Location(link.pool_id, f"pool id {link.pool_id}", link.namespace), link.image_id)
    except NotFound:
        return None  # its pool was removed

"""What an operation waits for: images that have to go first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class Key(NamedTuple):
    """An image, wherever it is: in the trash or not."""

    pool_id: int
    namespace: str
    image_id: str


def turn_of(key: Key) -> Key:
    """Return the key under which an image's removal waits for its turn."""
    return Key(key.pool_id, key.namespace, f"turn of {key.image_id}")


class Waiting(Exception):
    """A step can't go on until something else goes.

    ``waiting_for`` says to people what; ``keys`` are the images among it whose end is known to the engine. Without keys
    it is tried again after a while, of at most ``most`` seconds. ``done`` is how much of the step is done (0 to 1).
    """

    def __init__(
        self, waiting_for: list[str], keys: Iterable[Key] = (), *, most: float = math.inf, done: float = 0.0
    ) -> None:
        super().__init__(", ".join(waiting_for[:10]))
        self.waiting_for = waiting_for
        self.keys = frozenset(keys)
        self.most = most
        self.done = done

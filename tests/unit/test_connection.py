"""The connection that is made anew after it was cut off, on handles that are none."""

from __future__ import annotations

import pytest

rados = pytest.importorskip("rados")

from vdisk.cluster.connection import Connection  # noqa: E402
from vdisk.model.errors import Disconnected  # noqa: E402


class Handle:
    """A handle that is cut off at will."""

    def __init__(self) -> None:
        self.shut = 0


class Cut:
    """A connection with a clock of the test's, and the handles that it opened and gave back."""

    def __init__(self, pause: float) -> None:
        self.now = 100.0
        self.opened: list[Handle] = []
        self.connection = Connection(self.open, self.close, pause=pause, clock=lambda: self.now)

    def open(self) -> Handle:
        self.opened.append(Handle())
        return self.opened[-1]

    def close(self, handle: Handle) -> None:
        handle.shut += 1

    def use(self) -> Handle:
        with self.connection.handle("looking") as handle:
            return handle

    def cut_off(self) -> None:
        with pytest.raises(Disconnected), self.connection.handle("looking"):
            raise rados.ConnectionShutdown("cut off", errno=108)


def test_a_connection_that_was_cut_off_is_made_anew_after_the_pause():
    cut = Cut(pause=2.0)
    first = cut.use()
    assert cut.use() is first
    cut.cut_off()
    assert first.shut == 1
    for now in (100.0, 101.9):
        cut.now = now
        with pytest.raises(Disconnected, match="in a moment"):
            cut.use()
    assert cut.connection.sessions == 1
    cut.now = 102.0
    second = cut.use()
    assert second is not first
    assert cut.use() is second
    assert (cut.connection.sessions, second.shut) == (2, 0)


def test_a_late_word_of_a_session_that_was_given_up_does_not_prolong_the_pause():
    cut = Cut(pause=2.0)
    session = cut.connection.session()
    cut.connection.discard(session)
    cut.now = 101.5
    cut.connection.discard(session)
    cut.now = 102.0
    assert cut.use() is cut.opened[1]

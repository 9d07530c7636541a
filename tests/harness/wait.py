"""Waiting for a condition, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: Releases are tested side by side: what is waited for may take so many times as long as on a machine of its own.
BUSY = 3.0


class WaitTimeout(AssertionError):
    """A condition did not come true in time. The message names it, and the last value or exception seen."""


def wait_for(
    predicate: Callable[[], T | None],
    timeout: float,
    what: str,
    interval: float = 0.05,
    ignore: tuple[type[BaseException], ...] = (Exception,),
) -> T:
    """Call `predicate` until it returns something truthy, and return that.

    Exceptions of the kinds in `ignore` count as "not yet"; `Hopeless` and everything else pass through at once.
    `timeout` and `interval` are seconds, `timeout` those of a machine that has nothing else to do. Raises `WaitTimeout`
    when the time is over.
    """
    deadline = time.monotonic() + BUSY * timeout
    while True:
        try:
            value = predicate()
            if value:
                return value
            seen = f"last value {value!r}"
        except Hopeless:
            raise
        except ignore as error:
            seen = f"last exception {type(error).__name__}: {error}"
        if time.monotonic() >= deadline:
            raise WaitTimeout(f"not within {BUSY * timeout:g} s: {what} ({seen})")
        time.sleep(interval)


class Hopeless(AssertionError):
    """Raised by a predicate that knows that waiting on makes no sense."""

"""Nothing is silent for long: a line every few seconds that says how far something is."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

EVERY = 5.0  # seconds
_listener: ContextVar[Callable[[str], None]] = ContextVar("listener", default=print)


@contextmanager
def told_to(log: Callable[[str], None]) -> Iterator[None]:
    """A context whose progress is told to `log`."""
    token = _listener.set(log)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(line: str) -> None:
    """Say something to whoever listens."""
    _listener.get()(line)


class Progress:
    """Counts `total` pieces of work called `what` and tells from time to time how many are done, at what rate, and
    how long the rest will take."""

    def __init__(self, what: str, total: int):
        self.what, self.total, self.done = what, total, 0
        self.started = self.told = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.told >= EVERY:
            self.told = now
            tell(self.line(now - self.started))

    def line(self, seconds: float) -> str:
        rate = self.done / seconds
        left = (self.total - self.done) / rate
        return f"{self.what} {self.done}/{self.total}, {rate:.3g} a second, {left // 60:.0f}:{left % 60:02.0f} left"


def ticking(items: Iterable, what: str, total: int, count: Callable[..., int] = lambda item: 1) -> Iterator:
    """The items, one after the other, telling how far they are: they hold `total` pieces, `count(item)` each."""
    progress = Progress(what, total)
    for item in items:
        yield item
        progress.advance(count(item))

"""What is wrong with one message, queue or session, kept apart from everything else.

Who looks after many of them does each one ``with`` an `Apart`: what goes wrong with that one alone
is kept for who wants to know of it, and the others have their turn. What concerns the store, and so
all of them, passes.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from queue_core.errors import Closed, QueueCoreError, StoreCorrupt, TransportError

__all__ = ["Apart"]


class Apart:
    """A context manager, for one step after the other. One thread at a time.

    Attributes:
        error: the first that was wrong with one thing alone.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        """Nothing was wrong yet."""
        self.error: QueueCoreError | None = None

    def tell(self) -> None:
        """Raise the first error, now that all steps have been tried."""
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Self:
        """Begin a step."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Keep what concerns one thing alone."""
        if not isinstance(error, QueueCoreError) or not _concerns_one(error):
            return False
        self.error = self.error or error
        return True


def _concerns_one(error: QueueCoreError) -> bool:
    """Whether it comes from what a message, an entry of the table, or a queue's data is.

    Then the next one may be whole. Any other error of a store concerns all that is in it, and so
    does the end of the session.
    """
    if isinstance(error, TransportError | Closed):
        return isinstance(error, StoreCorrupt)
    return True

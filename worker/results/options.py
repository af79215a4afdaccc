"""How results are kept, as an app says it."""

from __future__ import annotations

import msgspec

from queue_core.worker.settings import Settings


class ResultOptions(msgspec.Struct, frozen=True):
    """How results are kept.

    Attributes:
        ttl: seconds for which those of tasks that returned are kept; None: for ever.
        failure_ttl: the same for failures, which somebody may want to look at later.
        max_size: bytes that an encoded result may have; a task that returns more has failed. None:
            any number.
        track_sent: note in the store what is sent, before it is: a task that waits in a queue is
            then told from one that never was. It costs a round trip for each.
    """

    ttl: float | None = 86400.0
    failure_ttl: float | None = 7 * 86400.0
    max_size: int | None = 16 * 1024 * 1024
    track_sent: bool = False


def result_options(settings: Settings) -> ResultOptions:
    """Return what the settings of an app say of results."""
    return ResultOptions(
        ttl=settings.result_expires,
        failure_ttl=settings.result_failure_expires,
        max_size=settings.result_max_size,
        track_sent=settings.task_track_sent,
    )

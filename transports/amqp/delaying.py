"""The ladder on a broker: made when first needed, and led to each target.

Whoever sends the first delayed message of a session looks for the marker exchange, and declares the
whole ladder (some 100 requests, a third of a second) if it is not there. Any number of processes
may do so at once. Targets are bound when they are first used, not in advance: a headers exchange
pays for each binding at each message. A target that was deleted took its binding along, so what is
known of targets is believed for a second only.

Declarations go over the consuming connection, which a memory alarm does not stop, and to which
exclusive queues belong. They need the permission to configure, write and read ``qc.delay.*``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, Literal

from queue_core.errors import AccessRefused, ConnectTimeout, QueueNotFound
from queue_core.message import Publication
from queue_core.policy import Clock
from queue_core.topology import Exchange, Queue
from queue_core.transport import Outcome
from queue_core.transports.amqp.administration import Administration
from queue_core.transports.amqp.copies import delayed
from queue_core.transports.amqp.ladder import (
    MARKER,
    Step,
    Target,
    ladder_steps,
    rounded,
    target_steps,
)

BELIEVED: Final = 1.0
"""Seconds for which a target that was found counts as being there."""

_LOOK: Final = Step("exchange_declare", {"exchange": MARKER, "passive": True})
_ADVICE: Final = (
    "delays need permission to configure, write and read exchanges and queues named qc.delay.*, "
    "and to read and write what they lead to"
)


class Delaying:
    """The sending end of the ladder. Thread-safe; methods block until their deadline at most."""

    def __init__(
        self, administration: Administration, known: Mapping[str, Queue], clock: Clock
    ) -> None:
        """``known`` holds the queues that this session declared, as they are declared."""
        self._administration = administration
        self._known = known
        self._clock = clock
        self._lock = threading.Lock()
        self._complete = False
        self._found: dict[Target, float] = {}

    def now(self) -> int:
        """Return milliseconds since 1970, for deadlines."""
        return int(self._clock.time() * 1000)

    def sendable(
        self, publications: Sequence[Publication], deadline: float
    ) -> list[Publication | Outcome]:
        """Return what to send for each publication, or what became of it already.

        Raises:
            QueueNotFound: an exchange does not exist.
            AccessRefused: no permission for the ladder, or the queue is another's exclusive one.
        """
        return [
            self._sendable(publication, deadline) if publication.delay > 0 else publication
            for publication in publications
        ]

    def _sendable(self, publication: Publication, deadline: float) -> Publication | Outcome:
        target = (
            Target("exchange", publication.exchange)
            if publication.exchange
            else self.to_queue(publication.routing_key)
        )
        try:
            self.lead_to(target, deadline)
        except QueueNotFound:
            if target.kind == "exchange":
                raise
            if publication.mandatory:
                return Outcome("unroutable", f"there is no queue {target.name!r}")
            return Outcome("confirmed")
        return delayed(publication, rounded(publication.delay), target, self.now())

    def to_queue(self, name: str, *, at_once: bool = False) -> Target:
        """Return the way to a queue.

        Without a relay if it is known never to refuse, or if the message does not wait: then the
        sender hears of a refusal himself, and no level is stopped by it.
        """
        if at_once:
            return Target("queue", name, relayed=False)
        queue = self._known.get(name)
        never_refuses = (
            queue is not None
            and queue.overflow == "drop-head"
            and queue.arguments.get("x-overflow", "drop-head") == "drop-head"
        )
        return Target("queue", name, relayed=not never_refuses)

    def lead_to(self, target: Target, deadline: float) -> None:
        """Return when the ladder is there and leads to ``target``.

        Raises:
            QueueNotFound: the target does not exist.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - monotonic())):
            raise ConnectTimeout("delay: the delay ladder is still being declared")
        try:
            self._complete_ladder(deadline)
            if self._found.get(target, 0.0) < monotonic():
                doing = f"lead delayed messages to {target.kind} {target.name!r}"
                self._administration.perform(target_steps(target), doing, deadline)
                self._found[target] = monotonic() + BELIEVED
        except AccessRefused as error:
            raise AccessRefused(f"{error}; {_ADVICE}") from error
        finally:
            self._lock.release()

    def _complete_ladder(self, deadline: float) -> None:
        if self._complete:
            return
        try:
            self._administration.perform([_LOOK], "look for the delay ladder", deadline)
        except QueueNotFound:
            self._administration.perform(ladder_steps(), "declare the delay ladder", deadline)
        self._complete = True

    def deleted(self, kind: Literal["queue", "exchange"], name: str, deadline: float) -> None:
        """Take down what led to a target that exists no more.

        Messages that still wait for it end in `LOST`.
        """
        for target in (Target(kind, name), Target(kind, name, relayed=False)):
            if self._found.pop(target, None) is not None and target.relayed:
                for entity in (Queue(target.relay), Exchange(target.relay)):
                    self._administration.delete(
                        entity, if_unused=False, if_empty=False, timeout=deadline - monotonic()
                    )

    def forget(self) -> None:
        """Look for everything again: something of it was deleted."""
        self._complete = False
        self._found = dict.fromkeys(self._found, 0.0)

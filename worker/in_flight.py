"""All messages that are here, by the tickets that the pool knows them by, and what ended lately.

A message that comes again - its session ended before the broker heard of its ack - is recognised
here, and is not run twice.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, tzinfo
from typing import Any, Final

from queue_core import Consumer, DecodeError, Message, Properties
from queue_core.worker.delivery import ActiveRequest, State
from queue_core.worker.hooks import WorkerHooks
from queue_core.worker.outcome import Begins, Done, Failed, News, Outcome, Returned
from queue_core.worker.settler import Settler

MAX_REMEMBERED: Final = 512
"""Outcomes that are kept for the case that their messages come again; up to twice as many are."""
MAX_REMEMBERED_BYTES: Final = 16384
"""Of message and result together; larger ones are run again."""
_RAN: Final = (Done, Failed)


class InFlight:
    """The requests that are here. Thread-safe: nearly each of its steps is one of a dict's.

    Attributes:
        revoked: ids of tasks that shall not run.
        hostname: the worker's name, for `ActiveRequest.info`.
        totals: how many messages of each task ended here.
        hooks: functions of the app that hear what happens here.
        zone: of points in time that name none: the app's.
    """

    def __init__(self, revoked: Iterable[str], hostname: str) -> None:
        """Nothing is here."""
        self.revoked: Any = revoked
        self.hostname = hostname
        self.tickets = itertools.count(1)
        self.totals: Counter[str] = Counter()
        self.hooks = WorkerHooks()
        self.zone: tzinfo = UTC
        self._here: dict[int, ActiveRequest] = {}
        self._ending = threading.Lock()
        self._done: dict[str, tuple[Message, Done | Failed]] = {}
        self._done_before = self._done
        self._settler: Settler | None = None

    @property
    def settler(self) -> Settler:
        """Who settles them."""
        assert self._settler is not None, "outcomes follow messages, and those follow the settler"
        return self._settler

    @settler.setter
    def settler(self, settler: Settler) -> None:
        self._settler = settler

    def add(self, request: ActiveRequest) -> None:
        """It is here until `remove`."""
        self._here[request.ticket] = request

    def remove(self, request: ActiveRequest) -> bool:
        """It is not here any more; return whether it was, which is True for one caller."""
        return self._here.pop(request.ticket, None) is not None

    def report(self, ticket: int, outcome: Outcome) -> None:
        """Take a pool's report."""
        request = self._here[ticket]
        with self._ending:  # from now on nothing is adopted for it
            request.state = "ended"
            if isinstance(outcome, _RAN):
                self._remember(request, outcome)
            if not isinstance(outcome, Returned):
                self.totals[request.name] += 1
        try:
            request.conclude(outcome)
        finally:
            del self._here[ticket]  # not before it is the settler's

    def _remember(self, request: ActiveRequest, outcome: Done | Failed) -> None:
        delivery = request.message.delivery
        if len(delivery.body) + len(delivery.raw) + len(outcome.reply) <= MAX_REMEMBERED_BYTES:
            if len(self._done) >= MAX_REMEMBERED:
                self._done_before, self._done = self._done, {}
            self._done[request.id] = (request.message, outcome)

    def done(self, task_id: str, message: Message) -> Done | Failed | None:
        """Return what became of a message here, if it was not long ago.

        It comes again when its session ended before the broker heard of the ack. While that session
        lasts this cannot be: then it is another message, which somebody sent under the same id.
        """
        known = self._done.get(task_id) or self._done_before.get(task_id)
        if known is None or not known[0].stale or not same(known[0], message):
            return None
        outcome = known[1]
        self._done[task_id] = (message, outcome)  # only this one may come again now
        return outcome

    def adopt(self, request: ActiveRequest, message: Message, taker: Consumer) -> bool:
        """Settle this message when the request ends, instead of its own; False if it is too late.

        It is the same one, delivered again since the session of the first delivery had ended.
        """
        with self._ending:
            if request.state == "ended" or self._here.get(request.ticket) is not request:
                return False
            request.message, request.taker = message, taker
            return True

    def hear(self, ticket: int, news: News) -> None:
        """Take a pool's news of a job."""
        request = self._here.get(ticket)
        if request is None:  # a thread of the task goes on although it has ended
            return
        if isinstance(news, Begins):
            request.on_accepted(news.pid)
        else:
            request.note(news.state)

    def all(self, state: State | None = None) -> list[ActiveRequest]:
        """Return those that are here, in the order of their arrival."""
        return [item for item in list(self._here.values()) if state in (None, item.state)]

    def find(self, ids: Iterable[str]) -> list[ActiveRequest]:
        """Return those that have one of these ids."""
        wanted = set(ids)
        return [request for request in self.all() if request.id in wanted]

    def get(self, ticket: int) -> ActiveRequest | None:
        """Return the request of a ticket, if it is here."""
        return self._here.get(ticket)

    def __len__(self) -> int:
        """How many are here."""
        return len(self._here)


def same(one: Message, other: Message) -> bool:
    """Whether two deliveries are of one message, as far as what is in them tells."""
    if one.body != other.body or one.queue != other.queue:
        return False
    try:
        return _identity(one.properties) == _identity(other.properties)
    except DecodeError:
        return False


def _identity(properties: Properties) -> tuple[object, ...]:
    """Return what stays the same however often a message is delivered: not what brokers add."""
    headers = {
        name: value for name, value in properties.headers.items() if not name.startswith("x-")
    }
    return properties.message_id, properties.timestamp, properties.reply_to, headers

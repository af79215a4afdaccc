"""What is sent together with the ack of a message: results, links, retries, the body of a chord.

Given a message and what became of its task, `Sequel` makes results certain and says what has to go
with the ack; it acks nothing itself. Counting the parts of a chord may block for round trips, and
so may a result store; both may be done again for the same message without harm.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Final

from queue_core import (
    Connection,
    Message,
    MessageError,
    Properties,
    Publication,
    Queue,
    TopologyMismatch,
    TransportError,
    UsageError,
    decode,
)
from queue_core.worker.composing import MAX_ID, Composer
from queue_core.worker.failure import Failure
from queue_core.worker.failure_effects import (
    FailureEffects,
    effects_of_failed_part,
    effects_of_failure,
)
from queue_core.worker.following import children
from queue_core.worker.messages import (
    id_in,
    label,
    name_in,
    properties_of,
    read_message,
    task_id,
    task_name,
)
from queue_core.worker.outcome import ChordPart, Done, Failed, Letter, Outcome, Reply, Retried
from queue_core.worker.protocol import Call
from queue_core.worker.results import base as delivering
from queue_core.worker.results.base import RESULT_ENCODING, RESULT_TYPE, Deliverer
from queue_core.worker.results.chords import MAX_PARTS, Chords
from queue_core.worker.results.wire import encode_failure, read_result
from queue_core.worker.signature import as_signature
from queue_core.worker.timestamps import utcnow
from queue_core.worker.unfolding import freeze, unfold

logger = logging.getLogger(__name__)

_NO_STORE: Final = "there is no store to count its parts in; give the app a backend="


class Sequel:
    """What follows messages. Thread-safe; blocks for round trips."""

    def __init__(
        self,
        connection: Connection,
        deliverer: Deliverer,
        *,
        composer: Composer,
        chords: Chords | None = None,
        accept: Sequence[str] = ("json", "msgpack"),
        keep_errors: Collection[str] = (),
    ) -> None:
        """Nothing is sent yet.

        Args:
            connection, deliverer: to the broker, and where results go.
            composer: makes messages of what follows tasks.
            chords: counts their parts; None: nothing can.
            accept: the serializers of messages that may be decoded here.
            keep_errors: names of tasks whose failures are kept even if their results are ignored.
        """
        self._connection = connection
        self._deliverer = deliverer
        self._composer = composer
        self._chords = chords
        self._accept = tuple(accept)
        self._keep_errors = keep_errors
        self._declared: set[str] = set()

    def of_replies(self, results: Iterable[tuple[Message, bytes]]) -> list[Publication]:
        """What follows tasks that have an encoded result, and nothing else: see `replies_only`."""
        return self._deliverer.deliver(
            [
                delivering.Reply(message, known, body)
                for message, body in results
                if _can_be_told(known := task_id(message))
            ]
        )

    def of_done(self, message: Message, outcome: Done) -> tuple[list[Publication], bool]:
        """What follows a task that returned, and whether its chord is `over` with that."""
        then = self._reply(message, task_id(message), outcome.reply)
        then += self._letters(outcome.letters)
        if outcome.chord is None:
            return then, False
        body = self._counted(message, outcome.chord, outcome.reply)
        return then + body, bool(body)

    def of_failed(self, message: Message, outcome: Failed) -> list[Publication]:
        """What follows a task that raised."""
        effects = FailureEffects(outcome.letters, outcome.others, outcome.chord)
        then = self._reply(message, task_id(message), outcome.reply)
        return then + self._after(message, effects, outcome.error)

    def of_retried(self, message: Message, outcome: Retried) -> list[Publication]:
        """The same task again; a broker that holds nothing back gets it at once, with its time."""
        publication = outcome.again.publication
        if publication.delay and not self._connection.features.delay:
            due = utcnow() + timedelta(seconds=publication.delay)
            publication.properties.headers["eta"] = due.isoformat()
            publication.delay = 0.0
        then = self._reply(message, task_id(message), outcome.reply)
        return then + self._letters([outcome.again])

    def of_unfinished(
        self, message: Message, type_name: str, reason: str, *, skipped: bool = False
    ) -> list[Publication]:
        """What follows a task that could not fail by itself: killed, or not run at all.

        With ``skipped`` it has no error links: nothing went wrong.
        """
        failure = Failure(type_name, "celery.exceptions", [reason])
        properties, body = properties_of(message), message.body
        return self._of_never(
            message, properties, body, failure, skipped=skipped, errbacks=not skipped
        )

    def of_lost(self, message: Message, follower: Publication, why: Failure) -> list[Publication]:
        """What follows a follower that cannot be sent, but its error links, which stay with it."""
        return self._of_never(message, follower.properties, follower.body, why, errbacks=False)

    def _of_never(
        self,
        message: Message,
        properties: Properties,
        body: bytes,
        failure: Failure,
        *,
        skipped: bool = False,
        errbacks: bool,
    ) -> list[Publication]:
        """What follows a task that will never end, itself or because of ``message``."""
        try:
            call = read_message(properties, body, self._accept)
        except MessageError:
            if not id_in(properties):
                return []
            call = Call(name_in(properties), id_in(properties), [], {})
        reply = encode_failure(call, failure, status="REVOKED" if skipped else "FAILURE")
        effects = effects_of_failure(
            self._composer, call, failure, queue=message.queue, errbacks=errbacks
        )
        if not call.ignore_result or (call.name in self._keep_errors and not skipped):
            effects.replies = [Reply(call.id, reply), *effects.replies]
        return self._after(message, effects, str(failure))

    def of_state(self, message: Message, state: bytes) -> list[Publication]:
        """What tells where a task is that has not ended."""
        return self._deliverer.note(delivering.Reply(message, task_id(message), state))

    def over(self, part: ChordPart) -> None:
        """The body of a chord is on its way: its parts can be forgotten."""
        if self._chords is not None:
            self._chords.forget(part)

    def declare(self, queue: Queue | None) -> None:
        """Make sure that a queue is there, as it is known to be after the first time."""
        if queue is None or queue.name in self._declared:
            return
        with contextlib.suppress(TopologyMismatch):  # it is there, and used as it is
            self._connection.declare(queue)
        self._declared.add(queue.name)

    def doubt(self) -> None:
        """Somebody may have deleted a queue: declare them again when they are needed."""
        self._declared.clear()

    # --- parts -----------------------------------------------------------------------------------

    def _reply(self, message: Message, of_task: str, reply: bytes) -> list[Publication]:
        """Make a result certain, or return what has to be sent."""
        if not reply or not _can_be_told(of_task):
            return []
        try:
            return self._deliverer.deliver([delivering.Reply(message, of_task, reply)])
        except MessageError as error:  # too large for the store: it never will be taken
            logger.error("the result of %s is kept as a failure: %s", label(message), error)
            call = Call(task_name(message), of_task, [], {})
            failed = Failure(type(error).__name__, type(error).__module__, [str(error)])
            body = encode_failure(call, failed)
            return self._deliverer.deliver([delivering.Reply(message, of_task, body)])

    def _letters(self, letters: Sequence[Letter]) -> list[Publication]:
        for letter in letters:
            self.declare(letter.queue)
        return [letter.publication for letter in letters]

    def _after(self, message: Message, effects: FailureEffects, error: str) -> list[Publication]:
        """What goes with the ack of a task that did not succeed."""
        then = self._letters(effects.letters)
        for reply in effects.replies:
            then += self._reply(message, reply.task_id, reply.body)
        part = effects.chord
        if part is None:
            return then
        chords = self._counting(message, part)
        if chords is None:
            return then + self._uncounted(message, part)
        return then + self._body_fails(message, part, error) if chords.failed(part) else then

    def _counted(self, message: Message, part: ChordPart, reply: bytes) -> list[Publication]:
        """Count a part that succeeded; the last one brings the body."""
        chords = self._counting(message, part)
        if chords is None:
            return self._uncounted(message, part)
        try:
            replies = chords.succeeded(part, reply)
        except MessageError as error:
            logger.error("chord %s cannot go on: %s", part.group, error)
            return self._body_fails(message, part, str(error)) if chords.failed(part) else []
        if replies is None:
            return []
        try:
            if len(replies) < part.size:
                raise UsageError("the results of its parts have expired")
            return self._letters(self._body(message, part, replies))
        except TransportError:
            raise
        except Exception as error:  # what came in a message may be anything
            logger.error("the body of chord %s cannot be sent: %s", part.group, error)
            return self._body_fails(message, part, f"{type(error).__name__}: {error}")

    def _uncounted(self, message: Message, part: ChordPart) -> list[Publication]:
        """What follows a part that is counted nowhere; without a store the first fails the body."""
        if self._chords is None and part.size > 0 and part.index == 0:
            return self._body_fails(message, part, _NO_STORE)
        return []

    def _body_fails(self, message: Message, part: ChordPart, why: str) -> list[Publication]:
        effects = effects_of_failed_part(self._composer, part, why, queue=message.queue)
        return self._after(message, effects, why)

    def _body(self, message: Message, part: ChordPart, replies: Sequence[bytes]) -> list[Letter]:
        values = [read_result(decode(body, RESULT_TYPE, RESULT_ENCODING)).value for body in replies]
        body, _ = freeze(as_signature(part.body))
        root = properties_of(message).headers.get("root_id")
        parent = Call("", task_id(message), [], {}, root_id=root if isinstance(root, str) else None)
        return [self._composer.compose(task) for task in children(unfold(body, [values]), parent)]

    def _counting(self, message: Message, part: ChordPart) -> Chords | None:
        """Where to count the part; None, with a reason in the log, if it cannot be."""
        chords = self._chords
        if part.size <= 0 or not 0 <= part.index <= part.size:
            why = "its sender counts its parts elsewhere, as celery's programs do"
        elif chords is None:
            why = _NO_STORE
        elif part.size > MAX_PARTS or not _is_id(part.group):
            why = "no chord has such an id, or so many parts"
        else:
            return chords
        logger.error("the chord %s of %s cannot go on: %s", part.group, label(message), why)
        return None


def _is_id(word: object) -> bool:
    return isinstance(word, str) and len(word.encode()) <= MAX_ID and "\0" not in word


def _can_be_told(of_task: str) -> bool:
    """Whether brokers and stores take the id of a task; another program may have made it."""
    if _is_id(of_task):
        return True
    logger.error(
        "the result of task %.60r is dropped: nothing can be sent with such an id", of_task
    )
    return False


def replies_only(outcome: Outcome) -> bytes:
    """Return the encoded result of a task that has one, and that nothing else follows."""
    if not isinstance(outcome, Done | Failed) or outcome.letters or outcome.chord:
        return b""
    return b"" if isinstance(outcome, Failed) and outcome.others else outcome.reply

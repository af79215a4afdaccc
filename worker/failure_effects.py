"""What a task that did not succeed brings about, as values.

The same for a task that failed in a child, for one whose process was killed, and for one that could
not be run at all: its own result, failures for the rest of its chain, which will never run, its
error links, and the part in a chord that it does not play. It reads the message, but runs nothing
of the user's.
"""

from __future__ import annotations

import logging

import msgspec

from queue_core import TooLarge
from queue_core.worker.composing import Composer
from queue_core.worker.failure import Failure
from queue_core.worker.following import after_failure, children, lost
from queue_core.worker.message_template import call_of
from queue_core.worker.outcome import ChordPart, Letter, Reply
from queue_core.worker.protocol import Call
from queue_core.worker.results.wire import encode_failure
from queue_core.worker.signature import as_signature
from queue_core.worker.unfolding import freeze, unfold

logger = logging.getLogger(__name__)


class FailureEffects(msgspec.Struct):
    """What a failure brings about.

    Attributes:
        letters: its error links.
        replies: failures for the tasks that will never run because of it.
        chord: the part in a chord that fails with it.
    """

    letters: list[Letter] = []
    replies: list[Reply] = []
    chord: ChordPart | None = None


def effects_of_failure(
    composer: Composer,
    call: Call,
    failure: Failure,
    *,
    queue: str = "",
    errbacks: bool = True,
) -> FailureEffects:
    """Return the effects of a ``call`` that did not succeed; never raises.

    What cannot be read or sent of it is logged, since there is nobody else to tell, and keeps
    nothing else from being sent.
    """
    try:
        ids, chord = lost(call)
    except Exception as error:  # what came in a message may be anything
        logger.error("what follows the failure of %s %s is damaged: %s", call.name, call.id, error)
        ids, chord = [], None
    letters = _error_links(composer, call, failure, queue) if errbacks else []
    never = [Call("", task_id, [], {}, root_id=call.root_id) for task_id in ids]
    return FailureEffects(
        letters, [Reply(one.id, encode_failure(one, failure)) for one in never], chord
    )


def _error_links(composer: Composer, call: Call, failure: Failure, queue: str) -> list[Letter]:
    """The error links.

    One that has no room for the failure and the arguments carries the end of the one, and none of
    the others.
    """
    less = msgspec.structs.replace(call, args=[], kwargs={})
    letters = []
    for errback in call.embed.errbacks or ():
        try:
            try:
                found = after_failure(call, errback, failure, queue)
                letters += [composer.compose(signature) for signature in found]
            except TooLarge:
                found = after_failure(less, errback, failure.shortened(), queue)
                letters += [composer.compose(signature) for signature in found]
        except Exception as error:
            logger.error("an error link of %s %s cannot be sent: %s", call.name, call.id, error)
    return letters


def effects_of_failed_part(
    composer: Composer, part: ChordPart, why: str, *, queue: str = ""
) -> FailureEffects:
    """Return the effects of one part of a chord that did not succeed: its body fails.

    Never raises: of a body that is damaged nobody can be told.
    """
    whole = FailureEffects([], [], None)
    error = Failure("ChordError", "celery.exceptions", [f"a part of the chord failed: {why}"])
    try:
        body, _ = freeze(as_signature(part.body))
        calls = [call_of(task, task.options) for task in children(unfold(body), None)]
    except Exception as damage:
        logger.error("the body of chord %s is damaged: %s", part.group, damage)
        return whole
    for call in calls:
        after = effects_of_failure(composer, call, error, queue=queue)
        whole.letters += after.letters
        whole.replies += [Reply(call.id, encode_failure(call, error)), *after.replies]
        whole.chord = whole.chord or after.chord
    return whole

"""What a pool gets and what it gives back: a job, and the outcome of its run, as values.

A pool never settles a message. It says what happened, and the worker's settler turns that into ack,
dead letter or requeue in one place. Jobs and outcomes cross the socket between the worker and its
children, so they hold nothing but plain data.

A run that sends something because of how it ended - the next task of its chain, its links, its own
retry - does not send it: the outcome carries it, and the settler sends it in one step with the ack.
So neither can happen without the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from queue_core import Properties, Publication, Queue, find_reader
from queue_core.worker.settings import Settings


class Job(msgspec.Struct, tag="job", array_like=True):
    """One message to run.

    Attributes:
        ticket: names the job between worker and pool; never used twice.
        name: of the task, empty if the message does not say.
        queue, attempts, redelivered: of the delivery.
        raw: the properties of the message as the broker has them. The worker does not decode them;
            the process that runs the job does.
        reader: what reads them, see `queue_core.find_reader`.
        body: still encoded.
        soft_limit: seconds after which the task gets `SoftTimeLimitExceeded`; None: never.
        hard_limit: seconds after which its process is killed; None: never. What the message itself
            says of both limits goes before these.
        announce: tell when it begins; see `queue_core.worker.pools.base.Pool.start`.
    """

    ticket: int
    name: str
    queue: str
    attempts: int
    redelivered: bool
    raw: bytes
    reader: str
    body: bytes
    soft_limit: float | None = None
    hard_limit: float | None = None
    announce: bool = False

    def properties(self) -> Properties:
        """Decode the properties. Raises DecodeError for damaged bytes."""
        return find_reader(self.reader).properties(self.raw)


class Letter(msgspec.Struct, array_like=True):
    """A message to send together with the ack.

    Attributes:
        publication: ready to be sent.
        queue: what to declare first if this process has not done so yet; None if it is there.
    """

    publication: Publication
    queue: Queue | None = None


class Reply(msgspec.Struct, array_like=True):
    """The encoded result message of another task than the one that ran."""

    task_id: str
    body: bytes


class ChordPart(msgspec.Struct, array_like=True):
    """The run was one part of the header of a chord; the last one to end starts the body.

    Attributes:
        group: id of the header.
        index: which part this is, from 0.
        size: how many parts there are.
        body: what to send when all are done. Its first argument, the list of their results in the
            order of ``index``, is still missing.
    """

    group: str
    index: int
    size: int
    body: dict[str, Any]


class Done(msgspec.Struct, tag="done", array_like=True):
    """The task returned.

    Attributes:
        reply: the encoded result message; empty if the task said that there is none.
        seconds: how long it ran.
        letters: links, the next of a chain.
        chord: the part that it played in a chord.
    """

    reply: bytes
    seconds: float
    letters: list[Letter] = []
    chord: ChordPart | None = None


class Failed(msgspec.Struct, tag="failed", array_like=True):
    """The task raised, for good.

    Attributes:
        reply: the encoded result message.
        error: one line for the log.
        seconds: how long it ran.
        trace: the formatted traceback.
        letters: error links.
        chord: the part that it played in a chord, which fails with it.
        others: failures for the rest of its chain, which will never run.
        expected: it is no surprise: one of the task's ``throws``.
    """

    reply: bytes
    error: str
    seconds: float
    trace: str = ""
    letters: list[Letter] = []
    chord: ChordPart | None = None
    others: list[Reply] = []
    expected: bool = False


class Retried(msgspec.Struct, tag="retried", array_like=True):
    """The task wants to run again.

    Attributes:
        again: the same task with one more in ``retries``, delayed.
        reply: the encoded state ``RETRY``, for backends that keep states.
        error: one line for the log.
        delay: seconds until then, for the log.
        seconds: how long it ran.
    """

    again: Letter
    reply: bytes
    error: str
    delay: float
    seconds: float


class Skipped(msgspec.Struct, tag="skipped", array_like=True):
    """It was not run, and never will be: revoked, or expired before it began."""

    reason: Literal["revoked", "expired"]


class TimedOut(msgspec.Struct, tag="timedout", array_like=True):
    """It ran longer than its hard limit of ``seconds``, and was killed."""

    seconds: float


class Terminated(msgspec.Struct, tag="terminated", array_like=True):
    """It was running and was ended because somebody asked for that; it must not run again."""


class Rejected(msgspec.Struct, tag="rejected", array_like=True):
    """The message cannot be run and never will be: unknown task, unreadable body.

    Attributes:
        reason: for the dead letter and the log.
        type_name: of the failure, for who waits.
        requeue: give it back instead: the task itself asked for that.
    """

    reason: str
    type_name: str = "Rejected"
    requeue: bool = False


class Returned(msgspec.Struct, tag="returned", array_like=True):
    """It was not started; somebody else may have it, and it must not count as an attempt."""


class Abandoned(msgspec.Struct, tag="abandoned", array_like=True):
    """It was running when the worker had to end, and did not finish."""


class Crashed(msgspec.Struct, tag="crashed", array_like=True):
    """The process that ran it died; ``how`` says by what."""

    how: str


Ran = Done | Failed | Retried | Rejected | Skipped
"""What running a job can end in."""

Outcome = Ran | TimedOut | Terminated | Returned | Abandoned | Crashed
"""What a pool can report; the last five are not for the run itself to know."""

Report = Callable[[int, Outcome], None]
"""How a pool reports the outcome of a ticket, exactly once for each.

Called on the pool's threads; does not block.
"""


class Begins(msgspec.Struct, tag="begins", array_like=True):
    """The job begins, in this process."""

    pid: int


class Says(msgspec.Struct, tag="says", array_like=True):
    """The task says how far it has come: the encoded message of a run that has not ended."""

    state: bytes


News = Begins | Says
"""What there is to tell of a job before its outcome."""

Hear = Callable[[int, News], None]
"""How a pool passes on news of a ticket's job; called as `Report`, and never after it."""


class TaskInfo(msgspec.Struct, array_like=True):
    """What the worker must know of one task, so that it need not import it.

    Attributes:
        name: on the wire.
        signature: of the function, for people: ``(x, y=1)``.
        doc: the first line of its docstring.
        acks_late: ack after the run; False: before it (at most once).
        rate_limit: starts per second in each worker, None: no limit.
        soft_limit, hard_limit: seconds; None: no limit.
        ignore_result: nobody will ask.
        track_started: tell the backend when it starts.
        strategy: ``module:name`` of a function that makes its requests instead of the usual one.
        queue: where it is sent unless the call says otherwise; None: to the default queue.
        rate_shared: the rate limit is for all workers together.
        store_errors: keep failures even of runs whose results are ignored.
        request_class: ``module:Class`` of its requests, if they are not the usual ones.
        coroutine: it is ``async def``.
    """

    name: str
    signature: str = "()"
    doc: str = ""
    acks_late: bool = True
    rate_limit: float | None = None
    soft_limit: float | None = None
    hard_limit: float | None = None
    ignore_result: bool = False
    track_started: bool = False
    strategy: str | None = None
    queue: str | None = None
    rate_shared: bool = False
    store_errors: bool = False
    request_class: str | None = None
    coroutine: bool = False


class AppInfo(msgspec.Struct, tag="app", array_like=True):
    """What the worker must know of an app that it does not import itself.

    Attributes:
        name: of the app.
        tasks: all that it can run.
        queues: definitions of queues that its settings or its tasks name.
        settings: without what only the app's own process can use.
        steps: ``worker`` and ``consumer`` -> its own steps, as ``module:Name``.
        commands: modules that register commands for remote control, which the worker imports.
        hooks: what the worker's own process tells its functions, and those as ``module:name``.
    """

    name: str
    tasks: list[TaskInfo]
    queues: list[Queue] = []
    settings: Settings = msgspec.field(default_factory=Settings)
    steps: dict[str, list[str]] = {}
    commands: list[str] = []
    hooks: dict[str, list[str]] = {}

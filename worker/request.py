"""What a running task can know of the message that it runs for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

from queue_core.worker.failure import Failure, read_failure
from queue_core.worker.protocol import Call, Wire
from queue_core.worker.results.wire import Result


class FailedRun(msgspec.Struct, frozen=True):
    """A run that failed, as an error link sees it.

    It travels inside the error link, so that the handler knows all of it on every broker, also
    where no result is kept.

    Attributes:
        id, name: of the run and its task.
        args, kwargs: its arguments.
        retries: how often it was tried again.
        queue: where its message was taken from.
        root_id, parent_id, group: as `Request` has them.
        failure: what went wrong.
    """

    id: str
    name: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    retries: int = 0
    queue: str = ""
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    failure: Failure = Failure("Exception", "", [])

    @property
    def task(self) -> str:
        """The name of the task, by celery's word for it."""
        return self.name

    @property
    def result(self) -> Result:
        """What became of it, as `AsyncResult` knows it."""
        return Result(
            self.id,
            "FAILURE",
            failure=self.failure,
            name=self.name,
            args=self.args,
            kwargs=self.kwargs,
            queue=self.queue,
            retries=self.retries,
        )

    def as_wire(self) -> dict[str, Any]:
        """Return it as it travels."""
        wire = {name: getattr(self, name) for name in _PLAIN}
        return wire | {"exc": self.failure.as_wire(), "traceback": self.failure.trace}


_PLAIN = ("id", "name", "args", "kwargs", "retries", "queue", "root_id", "parent_id", "group")


def failed_run(call: Call, queue: str, failure: Failure) -> FailedRun:
    """Return the failed run of ``call``."""
    return FailedRun(
        call.id,
        call.name,
        call.args,
        call.kwargs,
        call.retries,
        queue,
        call.root_id,
        call.parent_id,
        call.group,
        failure,
    )


def read_failed_run(wire: Mapping[str, Any] | None) -> FailedRun | None:
    """Read what `FailedRun.as_wire` wrote; None for everything else."""
    if wire is None:
        return None
    plain = {name: wire[name] for name in _PLAIN if wire.get(name) is not None}
    try:
        run = msgspec.convert(plain, FailedRun)
    except msgspec.ValidationError:
        return None
    failure = read_failure(wire.get("exc"), wire.get("traceback"))
    return msgspec.structs.replace(run, failure=failure)


State = Callable[[], bytes]
"""Encodes the message of a run that has not ended."""
Say = Callable[[State], None]
"""Takes it to whoever asks for the result. Neither is interrupted by what may interrupt a task."""


def unheard(state: State) -> None:
    """For runs that nobody asks for before they have ended."""
    state()


class Request:
    """The current run, as `queue_core.worker.task.Task.request` gives it inside a task.

    Attributes:
        queue: where the message was taken from.
        attempts: which delivery this is, 1 for the first; 0 where the broker cannot count.
        redelivered: it was delivered before, perhaps to a worker that died in the middle.
        headers: all headers of the message.
        hostname: the worker that runs it.
        is_eager: it is not run by a worker, but by `Task.apply`.
        failed: in an error link of ours: the run that failed; else None.
        children: the ids of the tasks that this run has sent.
        say: tells how far it has come.
    """

    __slots__ = (
        "attempts",
        "call",
        "children",
        "failed",
        "headers",
        "hostname",
        "is_eager",
        "priority",
        "queue",
        "redelivered",
        "say",
    )

    def __init__(
        self,
        call: Call,
        *,
        headers: Mapping[str, Any] | None = None,
        queue: str = "",
        attempts: int = 1,
        redelivered: bool = False,
        priority: int = 0,
        hostname: str = "",
        is_eager: bool = False,
        say: Say = unheard,
    ) -> None:
        """Wrap ``call``."""
        self.call = call
        self.headers = headers or {}
        self.queue = queue
        self.attempts = attempts
        self.redelivered = redelivered
        self.priority = priority
        self.hostname = hostname or HOSTNAME
        self.is_eager = is_eager
        self.failed = read_failed_run(call.embed.failed)
        self.children: list[str] = []
        self.say = say

    @property
    def id(self) -> str:
        """The id of the run; the same when it is delivered again or retried."""
        return self.call.id

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.call.name

    @property
    def task(self) -> str:
        """The name of the task, by celery's word for it."""
        return self.call.name

    @property
    def args(self) -> list[Any]:
        """The positional arguments."""
        return self.call.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments."""
        return self.call.kwargs

    @property
    def retries(self) -> int:
        """How often the task was retried before."""
        return self.call.retries

    @property
    def called_directly(self) -> bool:
        """Whether there is no message: the task was called as a function, outside of any run."""
        return not self.call.id

    @property
    def root_id(self) -> str | None:
        """The run that began it all."""
        return self.call.root_id

    @property
    def parent_id(self) -> str | None:
        """The run that sent this."""
        return self.call.parent_id

    @property
    def group(self) -> str | None:
        """The group that it belongs to."""
        return self.call.group

    @property
    def group_index(self) -> int | None:
        """Which member of the group it is."""
        return self.call.group_index

    @property
    def callbacks(self) -> list[Wire] | None:
        """What is sent when it succeeds."""
        return self.call.embed.callbacks

    @property
    def errbacks(self) -> list[Wire] | None:
        """What is sent when it fails."""
        return self.call.embed.errbacks

    @property
    def chain(self) -> list[Wire] | None:
        """What comes next, the very next at the end."""
        return self.call.embed.chain

    @property
    def chord(self) -> Wire | None:
        """The body of the chord that it is a part of."""
        return self.call.embed.chord

    @property
    def eta(self) -> str | None:
        """ISO 8601, the time before which it must not start, if a worker was told."""
        return self.call.eta

    @property
    def expires(self) -> str | None:
        """ISO 8601, the time after which it is not worth starting."""
        return self.call.expires

    @property
    def timelimit(self) -> tuple[float | None, float | None]:
        """Hard and soft limit in seconds, as its sender has set them."""
        return self.call.hard_limit, self.call.soft_limit

    @property
    def correlation_id(self) -> str:
        """The id of the run."""
        return self.call.id

    @property
    def reply_to(self) -> str | None:
        """The queue that its result is sent to."""
        return self.call.reply_to

    @property
    def ignore_result(self) -> bool:
        """Nobody wants the result."""
        return self.call.ignore_result

    @property
    def shadow(self) -> str | None:
        """Another name for logs."""
        return self.call.shadow

    @property
    def stamped_headers(self) -> list[str] | None:
        """Which of its ``stamps`` are handed on to what follows it; celery's clients set them."""
        return self.call.stamped_headers

    @property
    def stamps(self) -> dict[str, Any]:
        """What celery's clients have stamped it with."""
        return self.call.stamps

    @property
    def delivery_info(self) -> dict[str, Any]:
        """Where the message came from, by celery's words."""
        return {
            "queue": self.queue,
            "routing_key": self.queue,
            "exchange": "",
            "priority": self.priority,
            "redelivered": self.redelivered,
            "attempts": self.attempts,
            "is_eager": self.is_eager,
        }

    def __repr__(self) -> str:
        """Name the run."""
        return f"<Request {self.name} {self.id}>"


HOSTNAME = socket.gethostname()

_current: ContextVar[Request | None] = ContextVar("queue_core_request", default=None)


def current_request() -> Request | None:
    """The run that this thread, or this coroutine, is in the middle of; None outside."""
    return _current.get()


class AsCurrent:
    """Makes ``request`` the current one inside a ``with``; for those who run tasks."""

    __slots__ = ("_before", "_request")

    def __init__(self, request: Request) -> None:
        """It becomes so when the block begins."""
        self._request = request

    def __enter__(self) -> None:
        self._before = _current.set(self._request)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._before)

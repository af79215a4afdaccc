"""A function that can run elsewhere: called, it is the function; with ``delay``, a message.

`Task` is what ``@app.task`` makes of a function. It can be subclassed: for ``base=``, so that
several tasks share hooks and options, or with a `Task.run` of its own for
``app.register_task(MyTask())``. What stands here as an attribute of the class is an option of each
task; ``@app.task(name=value)`` sets it for one.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    ParamSpec,
    TypeVar,
    Unpack,
    cast,
)

from queue_core import Queue, UsageError, counted
from queue_core.worker.annotations import annotations_of
from queue_core.worker.blueprint import importable_path
from queue_core.worker.canvas import chunks, xmap, xstarmap
from queue_core.worker.composing import STANDARD_OPTIONS, SendOptions
from queue_core.worker.current import current_app
from queue_core.worker.endings import MaxRetriesExceeded, Replaced, Retry
from queue_core.worker.options import CELERYS, FROM_SETTINGS, HOOKS, NAMES, read_option
from queue_core.worker.outcome import TaskInfo
from queue_core.worker.parameters import Parameters
from queue_core.worker.protocol import Call
from queue_core.worker.rates import is_shared, per_second
from queue_core.worker.request import Request, current_request
from queue_core.worker.results.result import AsyncResult
from queue_core.worker.results.wire import progress
from queue_core.worker.retrying import again, replacement, retry_by_options
from queue_core.worker.settings import DEFAULTS, Settings
from queue_core.worker.signature import Signature

if TYPE_CHECKING:
    from queue_core.worker.app import App

P = ParamSpec("P")
R = TypeVar("R")

_NOTHING: Final = object()
_standard_options = operator.attrgetter(*STANDARD_OPTIONS)


class Task(Generic[P, R]):
    """Made by ``@app.task``. Safe to use from any thread once it is defined.

    Attributes:
        name: what it is called on the wire.
        queue, exchange, routing_key, priority, serializer, compression, expires, ignore_result:
            how it is sent unless the call says otherwise; see `SendOptions`.
        rate_limit: ``"10/s"``, ``"100/m"``, ``"2/h"``: starts per worker; on all of them
            together: ``"10/s cluster"``.
        time_limit, soft_time_limit: seconds: after the soft one the task gets
            `SoftTimeLimitExceeded`, after the hard one its process is killed.
        max_retries: how often it is retried; None: for ever.
        default_retry_delay: seconds before a retry that does not say.
        autoretry_for, dont_autoretry_for: exceptions after which it is retried by itself, and
            exceptions among those after which it is not.
        retry_kwargs: ``max_retries`` and ``countdown`` of such a retry; a backoff goes before.
        retry_backoff: wait 1, 2, 4, 8 ... seconds before an automatic retry (a number: times that),
            at most ``retry_backoff_max``; with ``retry_jitter`` any time up to that.
        acks_late: ack after the run. False: before it, so that it runs at most once.
        store_errors_even_if_ignored: keep failures although ``ignore_result``.
        track_started: tell the backend when it starts.
        unique_for: seconds during which the same arguments are not sent a second time.
        strategy: ``module:name``, see `queue_core.worker.strategy`.
        request_class: of what its messages are in the worker's own process: a subclass of
            `queue_core.worker.delivery.ActiveRequest`, or ``module:Class``.
        throws: exceptions that are no surprise: logged without a traceback.
        typing: refuse arguments that do not fit the function when it is sent.
    """

    abstract: ClassVar[bool] = True

    name: str = ""
    queue: Queue | str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    serializer: str | None = None
    compression: str | None = None
    expires: float | None = None
    rate_limit: str | float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_retries: int | None = 3
    default_retry_delay: float = 180.0
    autoretry_for: Sequence[type[BaseException]] = ()
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    acks_late: bool = True
    ignore_result: bool | None = None
    store_errors_even_if_ignored: bool = False
    track_started: bool = False
    unique_for: float | None = None
    strategy: str | None = None
    request_class: str | type[Any] | None = None
    throws: Sequence[type[BaseException]] = ()
    typing: bool = True

    _app: App | None = None
    _replaced: dict[str, Any] = {}
    function: Callable[..., Any]
    origin: Callable[..., Any]
    parameters: Parameters

    # --- being made ------------------------------------------------------------------------------

    def __init_subclass__(cls) -> None:
        """Check the options that a base class of tasks has; raises ConfigError."""
        super().__init_subclass__()
        for name, value in vars(cls).items():
            if name in NAMES or name in CELERYS:
                read_option(name, value)

    def define(
        self,
        function: Callable[..., Any] | None,
        *,
        name: str = "",
        bind: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Task[P, R]:
        """Become the task of ``function``, or of `run` if None; return it. Made by ``@app.task``.

        Raises:
            ConfigError: an option is unknown or wrong.
        """
        for option, value in (options or {}).items():
            self.set_option(option, value)
        self.name = name or self.name
        self.origin = function or self.run
        if function is None:
            self.function = self.run
        else:
            functools.update_wrapper(cast(Callable[..., Any], self), function)
            self.function = functools.partial(function, self) if bind else function
        self.parameters = Parameters(self.origin, bound=bind)
        return self

    def set_option(self, option: str, value: Any) -> None:
        """Set one option, for annotations too.

        Raises:
            ConfigError: there is none of that name, or the value is wrong.
        """
        value = read_option(option, value)
        if option not in CELERYS:
            setattr(self, option, types.MethodType(value, self) if option in HOOKS else value)

    def configure(self, settings: Settings) -> None:
        """Take what the settings say: annotations, and the options that it says nothing of.

        May be called again with other settings.

        Raises:
            ConfigError: an annotation is wrong.
        """
        for option, before in self._replaced.items():
            if before is _NOTHING:
                vars(self).pop(option, None)
            else:
                setattr(self, option, before)
        self._replaced = {}
        said = {
            option: value
            for option, name in FROM_SETTINGS.items()
            if (value := getattr(settings, name)) != getattr(DEFAULTS, name)
            and not self._says(option)
        }
        for option, value in {**said, **annotations_of(settings.task_annotations, self)}.items():
            self._replaced[option] = vars(self).get(option, _NOTHING)
            self.set_option(option, value)
        vars(self).pop("hooks", None)

    def _says(self, option: str) -> bool:
        """Whether the task or one of its base classes has such an option of its own."""
        bases = itertools.takewhile(lambda base: base is not Task, type(self).__mro__)
        return option in vars(self) or any(option in vars(base) for base in bases)

    def bind_to(self, app: App | None) -> None:
        """Belong to ``app``; None: to whichever app is current when it is used."""
        self._app = app

    @property
    def app(self) -> App:
        """The app that it belongs to; of a shared task the current one.

        Raises:
            UsageError: it is a shared task, and there is no app yet.
        """
        return self._app or current_app()

    # --- running ---------------------------------------------------------------------------------

    def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the work; for classes that are tasks themselves."""
        raise NotImplementedError(f"task {self.name} has no run()")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return cast(R, self.function(*args, **kwargs))

    @property
    def request(self) -> Request:
        """The message that the current run of a task is about.

        Outside of a run, where the task is called as the function that it is, it is an empty one:
        without id and arguments, not retried, and ``called_directly``.
        """
        return current_request() or Request(Call(self.name, "", [], {}))

    def _running(self) -> Request:
        """The request of the current run. Raises UsageError if there is none."""
        request = current_request()
        if request is None:
            raise UsageError(
                f"task {self.name} has no request: it is not being run by a worker in this thread"
            )
        return request

    @functools.cached_property
    def hooks(self) -> frozenset[str]:
        """The names of the hooks that are not empty."""
        return frozenset(
            name for name in HOOKS if getattr(self, name) != getattr(Task, name).__get__(self)
        )

    def before_start(self, task_id: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Hook: it is about to run."""

    def on_success(
        self, retval: Any, task_id: str, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Hook: it returned."""

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: list[Any],
        kwargs: dict[str, Any],
        einfo: str,
    ) -> None:
        """Hook: it raised, for good; ``einfo`` is the formatted traceback."""

    def on_retry(
        self,
        exc: BaseException,
        task_id: str,
        args: list[Any],
        kwargs: dict[str, Any],
        einfo: str,
    ) -> None:
        """Hook: it will run again."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: list[Any],
        kwargs: dict[str, Any],
        einfo: str,
    ) -> None:
        """Hook: it has ended, in any way; called after the others."""

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        exc: BaseException | None = None,
        throw: bool = True,
        max_retries: int | None = None,
        **options: Unpack[SendOptions],
    ) -> Retry:
        """End this run and run the task again later: ``raise self.retry(exc=error, countdown=5)``.

        Nothing is sent here: the new message is sent in one step with the ack of this one.

        Args:
            args, kwargs: instead of those of this run.
            exc: why. It is raised when the task was retried often enough.
            throw: raise the `Retry` here, instead of returning it to be raised.
            max_retries: instead of the task's own.
            options: how it is sent, see `SendOptions`; without ``countdown`` and ``eta`` after
                `default_retry_delay` seconds.

        Raises:
            Retry: unless ``throw`` is False.
            MaxRetriesExceeded: it was retried often enough, and there is no ``exc``.
            UsageError: no task is running, and there is no ``exc``, which is raised else.
        """
        if exc is not None and self.request.called_directly:
            raise exc
        request = self._running()
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and request.retries >= limit:
            if exc is not None:
                raise exc
            raise MaxRetriesExceeded(
                f"task {self.name} ({request.id}) was retried {counted(request.retries, 'time')}, "
                "its limit"
            )
        given = dict(options)
        if given.get("countdown") is None and given.get("eta") is None:
            given["countdown"] = self.default_retry_delay
        ending = again(request, args, kwargs, given, exc, self.app.composer.zone)
        if throw:
            raise ending
        return ending

    def retry_after(self, error: BaseException) -> Retry | None:
        """Return how to retry after ``error``, if the options say so; None: it failed."""
        return retry_by_options(self, self._running(), error)

    def replace(self, signature: Signature[Any]) -> None:
        """End this run and let ``signature`` take its place.

        It gets this run's id, and whatever follows this one follows it.

        Raises:
            Replaced: always.
        """
        raise Replaced(replacement(self._running(), signature))

    def update_state(
        self, task_id: str | None = None, state: str = "PROGRESS", meta: Any = None
    ) -> None:
        """Say how far this run has come: ``self.update_state(meta={"done": 3, "of": 10})``.

        Whoever has its `AsyncResult` finds the state in ``state``, and ``meta`` in ``info``, until
        it ends or says something else. Does not block: the worker tells it soon, and what is said
        meanwhile replaces it. Nothing is told if nobody wants the result, or if it was not sent.

        Args:
            task_id: of this run, if anything: one can speak for itself only.
            state: a word of one's own, or ``STARTED``.
            meta: anything that JSON can say.

        Raises:
            UsageError: no task is running, ``task_id`` is another one's, or ``state`` is how runs
                end: return, or raise an error, for that.
            MessageError: ``meta`` cannot be written.
            TooLarge: ``meta`` is larger than ``result_max_size``.
        """
        request = self._running()
        if task_id not in (None, request.id):
            raise UsageError(f"run {request.id} of task {self.name} cannot speak for {task_id}")
        limit = self.app.settings.result_max_size
        request.say(functools.partial(progress, request.id, state, meta, limit))

    # --- sending ---------------------------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments; blocks and raises as `apply_async` does."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[R]:
        """Send the task; blocks until the broker has it, at most its timeout.

        Args:
            args, kwargs: the arguments; they must fit the function.
            options: see `SendOptions`.

        Raises:
            TypeError: the arguments do not fit the function.
            MessageError: an argument cannot be written; it is named.
            Unsupported: the broker cannot do what an option asks for, such as a countdown.
            QueueCoreError: see `queue_core.Producer.publish`.
        """
        if self.typing:
            self.check(args, kwargs)
        return self.app.send_task(self.name, args, kwargs, **options)

    def apply(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[R]:
        """Run the task here and now as a worker would: with hooks, retries, links."""
        if self.typing:
            self.check(args, kwargs)
        return self.app.run_eagerly(self.signature(args, kwargs, **options))

    def send_many(
        self, calls: Iterable[Sequence[Any]], **options: Unpack[SendOptions]
    ) -> list[AsyncResult[R]]:
        """Send the task once for each sequence of positional arguments, pipelined.

        Blocks until the broker has every one; much faster than one `delay` after the other. Raises
        as `App.send_many` does; the arguments are not checked against the function.
        """
        return self.app.send_many(self.name, calls, **options)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> None:
        """Raise TypeError if the function does not take these arguments."""
        self.parameters.check(self.name, args, kwargs)

    def AsyncResult(self, task_id: str) -> AsyncResult[R]:  # noqa: N802 - celery's name
        """Return the handle on a run that was sent before; see `App.AsyncResult`."""
        return self.app.AsyncResult(task_id)

    # --- signatures ------------------------------------------------------------------------------

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return a signature with these arguments; further ones come before them."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return a signature that takes no further arguments."""
        return self.signature(args, kwargs).set(immutable=True)

    def signature(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> Signature[R]:
        """Return a signature with these arguments and options."""
        made: Signature[R] = Signature(self.name, list(args), dict(kwargs or {}), dict(options))
        return made.bound(self)

    def map(self, items: Iterable[Any]) -> Signature[list[R]]:
        """Return a signature of one run that calls the task for each item."""
        return cast(Signature[list[R]], xmap(self.s(), items))

    def starmap(self, items: Iterable[Sequence[Any]]) -> Signature[list[R]]:
        """As `map`, with the arguments of each call as a sequence."""
        return cast(Signature[list[R]], xstarmap(self.s(), items))

    def chunks(self, items: Iterable[Sequence[Any]], n: int) -> Signature[list[list[R]]]:
        """Return a signature of a group of runs, each of which makes ``n`` calls."""
        return cast(Signature[list[list[R]]], chunks(self.s(), items, n))

    # --- information -----------------------------------------------------------------------------

    def send_options(self) -> dict[str, Any]:
        """Return the options with which it is sent unless the call says otherwise."""
        values = zip(STANDARD_OPTIONS, _standard_options(self), strict=True)
        return {name: value for name, value in values if value is not None}

    def info(self) -> TaskInfo:
        """Say what a worker must know of this task."""
        queue, kind = self.queue, self.request_class
        return TaskInfo(
            self.name,
            str(self.parameters),
            (inspect.getdoc(self.origin) or "").partition("\n")[0],
            self.acks_late,
            per_second(self.rate_limit),
            self.soft_time_limit,
            self.time_limit,
            bool(self.ignore_result),
            self.track_started,
            self.strategy,
            queue.name if isinstance(queue, Queue) else queue,
            is_shared(self.rate_limit),
            self.store_errors_even_if_ignored,
            importable_path(kind) if isinstance(kind, type) else kind,
            inspect.iscoroutinefunction(self.function),
        )

    def __repr__(self) -> str:
        """Name the task."""
        return f"<Task {self.name}{self.parameters}>"

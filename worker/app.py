"""An application: a name, a broker, and the tasks that it knows.

Making an app and its tasks connects to nothing, so that a module with tasks can be imported
anywhere. The first task that is sent opens this process's connection; a forked process opens its
own. Tasks travel as celery's protocol 2 (`queue_core.worker.protocol`), and the queues are declared
as celery declares them, so that its programs can work beside ours.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from queue_core import (
    ConfigError,
    Connection,
    Exchange,
    Producer,
    Publication,
    Queue,
    Unroutable,
    UsageError,
)
from queue_core.worker.outcome import AppInfo
from queue_core.worker.protocol import task_body, task_headers
from queue_core.worker.request import Request
from queue_core.worker.results.base import Results
from queue_core.worker.results.key_value import KeyValueResults
from queue_core.worker.results.result import AsyncResult
from queue_core.worker.results.rpc import ReplyQueue
from queue_core.worker.task import SendOptions, Task

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_QUEUE = "celery"
RPC = ("rpc", "rpc://")
URL_VARIABLE = "QUEUE_CORE_URL"


class App:
    """Tasks and where they are sent. Thread-safe once its tasks are defined."""

    def __init__(
        self,
        name: str = "",
        *,
        broker: str | None = None,
        backend: str | None = None,
        default_queue: str = DEFAULT_QUEUE,
        queues: Sequence[Queue] = (),
        serializer: str = "json",
        accept: Sequence[str] = ("json", "msgpack"),
        result_ttl: float = 86400.0,
    ) -> None:
        """Keep the settings; nothing is connected.

        Args:
            name: for people.
            broker: the broker's URL; the environment's ``QUEUE_CORE_URL`` if None.
            backend: where results are kept: a URL, or ``rpc://`` to send them to the waiting
                process only. None: in the broker where it has a key-value store, by rpc elsewhere.
            default_queue: for tasks without a queue of their own.
            queues: definitions of queues that shall not be the plain durable ones: with
                ``max_priority``, a dead-letter exchange ...
            serializer: for arguments.
            accept: the serializers that workers of this app decode.
            result_ttl: seconds for which results are kept.
        """
        self.name = name
        self.broker = broker
        self.backend = backend
        self.default_queue = default_queue
        self.accept = tuple(accept)
        self.result_ttl = result_ttl
        self._serializer = serializer
        self._queues = {queue.name: queue for queue in queues}
        if "" in self._queues:
            raise ConfigError("the queues of an app need names")
        self._tasks: dict[str, Task[..., Any]] = {}
        self._request: ContextVar[Request | None] = ContextVar("request", default=None)
        self._process: dict[int, _Process] = {}

    # --- tasks -----------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: Queue | str | None = None,
        priority: int | None = None,
        ignore_result: bool = False,
        serializer: str | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: Queue | str | None = None,
        priority: int | None = None,
        ignore_result: bool = False,
        serializer: str | None = None,
    ) -> Any:
        """Make a task of a function: ``@app.task`` or ``@app.task(queue="mail")``.

        Args:
            function: the function, when used without parentheses.
            name: on the wire; ``module.function`` if None.
            queue, priority, ignore_result, serializer: how it is sent unless the call says
                otherwise; see `SendOptions`.

        Raises:
            ConfigError: the name is taken by another function, or the function is a coroutine.
        """
        options: SendOptions = {
            "queue": queue,
            "priority": priority,
            "ignore_result": ignore_result,
            "serializer": serializer,
        }

        def define(target: Callable[P, R]) -> Task[P, R]:
            return self._define(target, name or self._name_of(target), options)

        return define if function is None else define(function)

    def _define(self, function: Callable[P, R], name: str, options: SendOptions) -> Task[P, R]:
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"task {name}: coroutine functions cannot be tasks in this version; use 'def'"
            )
        known = self._tasks.get(name)
        if known is not None and known.function.__qualname__ != function.__qualname__:
            raise ConfigError(
                f"two functions want to be task {name!r}; give one of them another name="
            )
        if isinstance(options.get("queue"), Queue):
            queue = options["queue"]
            assert isinstance(queue, Queue)
            self._queues.setdefault(queue.name, queue)
        task = Task(self, function, name, options)
        self._tasks[name] = task
        return task

    def _name_of(self, function: Callable[..., Any]) -> str:
        module = function.__module__
        if module == "__main__":
            module = self.name or "__main__"
        return f"{module}.{function.__qualname__.replace('<locals>.', '')}"

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """Every task by its name."""
        return MappingProxyType(self._tasks)

    @property
    def request(self) -> Request | None:
        """The run that the current thread is in the middle of; None outside."""
        return self._request.get()

    @contextlib.contextmanager
    def running(self, request: Request) -> Iterator[None]:
        """Make ``request`` the current one; for those who run tasks."""
        token = self._request.set(request)
        try:
            yield
        finally:
            self._request.reset(token)

    # --- sending ---------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> AsyncResult[Any]:
        """Send a task by name, which this process need not know; blocks until the broker has it.

        Args:
            name: of the task where it runs.
            args, kwargs: its arguments, which the serializer must be able to write.
            options: see `SendOptions`.

        Raises:
            Unsupported: the broker cannot do what an option asks for, such as a countdown.
            QueueCoreError: see `queue_core.Producer.publish`.
        """
        named = {} if kwargs is None else kwargs
        publication, result = self._prepare(name, args, named, options)
        here = self._here()
        try:
            here.producer.publish_many([publication])
        except Unroutable:  # somebody deleted the queue since it was declared
            here.declared.pop(publication.routing_key, None)
            publication, result = self._prepare(
                name, args, named, {**options, "task_id": result.id}
            )
            here.producer.publish_many([publication])
        return result

    def send_many(
        self, name: str, calls: Iterable[Sequence[Any]], **options: Unpack[SendOptions]
    ) -> list[AsyncResult[Any]]:
        """Send a task many times, pipelined; blocks until the broker has every one.

        Args:
            name: of the task where it runs.
            calls: the positional arguments of each call. May be long: it is read bit by bit.
            options: for all of them; see `SendOptions`. No ``task_id``.

        Raises:
            PublishError: one was not accepted; those before it were sent, later ones perhaps.
            QueueCoreError: see `queue_core.Producer.publish_many`.
        """
        if options.get("task_id"):
            raise UsageError("each of many tasks has an id of its own; task_id= cannot be given")
        results: list[AsyncResult[Any]] = []

        def prepared() -> Iterator[Publication]:
            for args in calls:
                publication, result = self._prepare(name, args, {}, options)
                results.append(result)
                yield publication

        self._here().producer.publish_many(prepared())
        return results

    def _prepare(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: SendOptions
    ) -> tuple[Publication, AsyncResult[Any]]:
        """Declare what the call needs, encode it, and get ready for its result."""
        if isinstance(args, str | bytes):
            raise UsageError(
                f"the arguments of task {name} are a sequence, not a string: [{args!r}]"
            )
        here = self._here()
        queue = here.declare(self.queue(options.get("queue")))
        task_id = options.get("task_id") or str(uuid.uuid4())
        ignored = bool(options.get("ignore_result"))
        results = None if ignored else here.results()
        reply_to = None if results is None else results.reply_to()
        kept = None if results is None else results.expect(task_id)
        expires = options.get("expires")
        parent = self.request
        headers = task_headers(
            name,
            task_id,
            args,
            kwargs,
            origin=f"gen{os.getpid()}@{here.host}",
            root_id=parent.root_id if parent is not None else None,
            parent_id=parent.id if parent is not None else None,
            expires=None if expires is None else (_now() + timedelta(seconds=expires)).isoformat(),
            ignore_result=ignored,
        )
        publication = here.producer.prepare(
            task_body(args, kwargs),
            queue.name,
            headers={**headers, **(options.get("headers") or {})},
            serializer=options.get("serializer") or self._serializer,
            priority=options.get("priority") or 0,
            delay=options.get("countdown") or 0.0,
            ttl=expires,
            correlation_id=task_id,
            reply_to=reply_to,
        )
        return publication, AsyncResult(task_id, results, kept)

    def queue(self, queue: Queue | str | None = None) -> Queue:
        """Return the definition of a queue: the app's own if it has one, else `plain_queue`."""
        if isinstance(queue, Queue):
            return queue
        name = queue or self.default_queue
        known = self._queues.get(name)
        return known if known is not None else plain_queue(name)

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:  # noqa: N802 - celery's name
        """Return the handle on a task that was sent before.

        Raises Unsupported where results reach only the sender.
        """
        results = self._here().results()
        return AsyncResult(task_id, results, results.recall(task_id))

    # --- this process ----------------------------------------------------------------------------

    def use(self, *, broker: str | None = None, backend: str | None = None) -> None:
        """Replace broker or backend (unless None).

        Raises UsageError once this process has used the app's connection.
        """
        if os.getpid() in self._process:
            raise UsageError(
                "the app is connected already; set its broker before it sends anything"
            )
        self.broker = broker or self.broker
        self.backend = backend or self.backend

    def connection(self) -> Connection:
        """Return this process's connection, which the app closes. Does not connect yet."""
        return self._here().connection

    def info(self) -> AppInfo:
        """Say what a worker must know of this app."""
        return AppInfo(
            name=self.name,
            broker=self.broker,
            backend=self.backend,
            default_queue=self.default_queue,
            tasks=[task.info() for _, task in sorted(self._tasks.items())],
            queues=list(self._queues.values()),
            accept=list(self.accept),
            result_ttl=self.result_ttl,
        )

    def close(self) -> None:
        """End this process's connection and its reply queue.

        May be called twice, and the app may be used again.
        """
        here = self._process.pop(os.getpid(), None)
        if here is not None:
            here.close()

    def _here(self) -> _Process:
        pid = os.getpid()
        here = self._process.get(pid)
        if here is None:
            url = self.broker or os.environ.get(URL_VARIABLE)
            if not url:
                raise ConfigError(
                    "the app has no broker: App(broker='sqlite:///queue.db'), "
                    f"or the variable {URL_VARIABLE}"
                )
            here = self._process.setdefault(pid, _Process(url, self.backend))
        return here

    def __repr__(self) -> str:
        """Name the app."""
        return f"<App {self.name!r} with {len(self._tasks)} tasks>"


class _Process:
    """What an app holds in one process.

    Locks are made in the process that uses them, so a fork inherits none that is held.
    """

    def __init__(self, url: str, backend: str | None) -> None:
        self.connection = Connection(url)
        self.producer: Producer = self.connection.producer()
        self.host = socket.gethostname()
        self._pid = os.getpid()
        self._backend = backend
        self._lock = threading.Lock()
        self.declared: dict[str, Queue] = {}
        self._results: Results | None = None
        self._backend_connection: Connection | None = None

    def declare(self, queue: Queue) -> Queue:
        known = self.declared.get(queue.name)
        if known is None:
            known = self.declared[queue.name] = self.connection.declare(queue)
        return known

    def results(self) -> Results:
        if self._results is None:
            with self._lock:
                if self._results is None:
                    self._results = self._choose()
                    atexit.register(self.close)
        return self._results

    def _choose(self) -> Results:
        if self._backend in RPC or (
            self._backend is None and not self.connection.features.key_value
        ):
            return ReplyQueue(self.connection)
        if self._backend is None:
            return KeyValueResults(self.connection)
        self._backend_connection = Connection(self._backend)
        return KeyValueResults(self._backend_connection)

    def close(self) -> None:
        atexit.unregister(self.close)
        if os.getpid() != self._pid:
            return  # the exit of a forked child, which must leave the parent's reply queue alone
        if self._results is not None:
            self._results.close()
        if self._backend_connection is not None:
            self._backend_connection.close()
        self.connection.close()


def plain_queue(name: str) -> Queue:
    """Return what celery declares: a durable classic queue, and a direct exchange of its name."""
    return Queue(name, exchange=Exchange(name), routing_key=name, queue_type="classic")


def _now() -> datetime:
    return datetime.now(UTC)

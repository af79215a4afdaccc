"""An application: a name, a broker, and the tasks that it knows.

Making an app and its tasks connects to nothing, so that a module with tasks can be imported
anywhere. The first task that is sent opens this process's connection; a forked process opens its
own. Tasks travel as celery's protocol 2 (`queue_core.worker.protocol`), and the queues are declared
as celery declares them, so that its programs can work beside ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, overload

from queue_core import ConfigError, Connection, Queue, UsageError
from queue_core.worker.blueprint import Steps, load
from queue_core.worker.builtin import builtin_tasks
from queue_core.worker.composing import Composer, SendOptions, plain_queue
from queue_core.worker.control.registry import modules
from queue_core.worker.current import make_current, shared
from queue_core.worker.eager import run_eagerly
from queue_core.worker.hooks import Hooks, Middleware
from queue_core.worker.outcome import AppInfo
from queue_core.worker.request import HOSTNAME, Request, current_request
from queue_core.worker.results.result import AsyncResult
from queue_core.worker.results.wire import Result
from queue_core.worker.sending import Office
from queue_core.worker.signature import Signature, as_signature
from queue_core.worker.task import Task, TaskOptions

if TYPE_CHECKING:
    from queue_core.worker.control.client import Control

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Middleware)

DEFAULT_QUEUE = "celery"
URL_VARIABLE = "QUEUE_CORE_URL"
CONTROL = "queue_core.worker.control.client:Control"


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
        """Keep the settings; nothing is connected. It becomes the current app.

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
        self.hostname = HOSTNAME
        """What requests and results say of where a task ran; a worker's name in a worker."""
        self.broker = broker
        self.backend = backend
        self.default_queue = default_queue
        self.accept = tuple(accept)
        self.result_ttl = result_ttl
        self._control: Control | None = None
        self.steps = {"worker": Steps(), "consumer": Steps()}
        """Steps that its workers have besides their own; see `queue_core.worker.blueprint`."""
        self._queues = {queue.name: queue for queue in queues}
        if "" in self._queues:
            raise ConfigError("the queues of an app need names")
        self._tasks: dict[str, Task[..., Any]] = {}
        self._builtin = {task.name: task for task in builtin_tasks()}
        for task in self._builtin.values():
            task.bind_to(self)
        self.composer = Composer(self._find_queue, self._defaults, serializer=serializer)
        self._offices: dict[int, Office] = {}
        self.hooks = Hooks()
        """Who hears of what it does; see `queue_core.worker.hooks`."""
        make_current(self)

    @property
    def app(self) -> App:
        """Itself: what its tasks and signatures ask for."""
        return self

    # --- tasks -----------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        bind: Literal[True],
        name: str | None = None,
        base: type[Task[..., Any]] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...

    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        bind: Literal[False] = False,
        name: str | None = None,
        base: type[Task[..., Any]] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        bind: bool = False,
        name: str | None = None,
        base: type[Task[..., Any]] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Make a task of a function: ``@app.task`` or ``@app.task(queue="mail")``.

        Args:
            function: the function, when used without parentheses.
            bind: give the function its task as the first argument, ``self``.
            name: on the wire; ``module.function`` if None.
            base: a subclass of `Task`, whose hooks and options it gets.
            options: see `TaskOptions`.

        Raises:
            ConfigError: the name is taken by another function, or an option is unknown or wrong.
        """

        def define(target: Callable[..., Any]) -> Task[..., Any]:
            task = (base or Task)()
            called = name or task.name or self._name_of(target)
            task.define(target, name=called, bind=bind, options=options)
            return self.register_task(task)

        return define if function is None else define(function)

    def register_task(self, task: Task[P, R]) -> Task[P, R]:
        """Know a task, such as an instance of a class with a ``run``; return it.

        Raises:
            ConfigError: the name is taken by another one.
        """
        if not hasattr(task, "function"):
            task.define(None, name=task.name or self._name_of(type(task)))
        known = self._tasks.get(task.name)
        if known is not None and known.origin.__qualname__ != task.origin.__qualname__:
            raise ConfigError(
                f"two functions want to be task {task.name!r}; give one of them another name="
            )
        task.bind_to(self)
        self._tasks[task.name] = task
        return task

    def _name_of(self, target: Callable[..., Any]) -> str:
        module = target.__module__
        if module == "__main__":
            module = self.name or "__main__"
        return f"{module}.{target.__qualname__.replace('<locals>.', '')}"

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """Every task by its name, shared ones included, but not celery's own, such as its map."""
        return {**shared, **self._tasks} if shared else self._tasks

    def find_task(self, name: str) -> Task[..., Any] | None:
        """Return the task of this name, if the app knows it."""
        return self._tasks.get(name) or shared.get(name) or self._builtin.get(name)

    def middleware(self, function: F) -> F:
        """Put ``function(task, request, call)`` around each run of a task; return it.

        It returns what ``call()`` returns, or something else. The first one is the outermost.
        """
        self.hooks.around.append(function)
        return function

    @property
    def request(self) -> Request | None:
        """The run that the current thread is in the middle of; None outside."""
        return current_request()

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
            MessageError: an argument cannot be written; it is named.
            Unsupported: the broker cannot do what an option asks for, such as a countdown.
            QueueCoreError: see `queue_core.Producer.publish`.
        """
        if isinstance(args, str | bytes):
            raise UsageError(
                f"the arguments of task {name} are a sequence, not a string: [{args!r}]"
            )
        return self.send(Signature(name, list(args), dict(kwargs or {}), dict(options)))

    def send(self, signature: Signature[R]) -> AsyncResult[R]:
        """Send a signature: a task, or the first tasks of a chain, group or chord.

        Blocks until the broker has them, and raises as `send_task` does.
        """
        return self._office().send(signature)

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
        return self._office().send_many(name, calls, options)

    # --- signatures ------------------------------------------------------------------------------

    def signature(
        self,
        task: str | Mapping[str, Any] | Signature[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> Signature[Any]:
        """Return a signature that this app sends, of a task by its name, or from its wire form.

        Raises:
            DecodeError: ``task`` is a mapping that is no signature.
        """
        if isinstance(task, str):
            made: Signature[Any] = Signature(task, list(args), dict(kwargs or {}), dict(options))
            made.immutable = immutable
        else:
            made = as_signature(task).clone(args, kwargs, **options)
        return made.bound(self)

    def call(self, signature: Signature[Any]) -> Any:
        """Run the task of a signature here and now, as a plain function.

        Raises:
            UsageError: this app does not know the task.
        """
        task = self.find_task(signature.task)
        if task is None:
            raise UsageError(f"the app has no task {signature.task!r}, it can only send it")
        return task(*signature.args, **signature.kwargs)

    def run_eagerly(self, signature: Signature[Any]) -> AsyncResult[Any]:
        """Run a signature here and now, and everything that follows it; return its result.

        Raises:
            UsageError: this app does not know one of the tasks.
        """
        return run_eagerly(self, signature)

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:  # noqa: N802 - celery's name
        """Return the handle on a task that was sent before.

        In an error link the failed task is known already.

        Raises Unsupported where results reach only the sender.
        """
        request = self.request
        failed = None if request is None else request.failed
        if failed is not None and failed.id == task_id:
            return AsyncResult(
                task_id,
                None,
                result=Result(
                    task_id,
                    "FAILURE",
                    failure=failed.failure,
                    name=failed.name,
                    args=failed.args,
                    kwargs=failed.kwargs,
                    queue=failed.queue,
                    retries=failed.retries,
                ),
            )
        return self._office().result_of(task_id)

    # --- queues ----------------------------------------------------------------------------------

    def queue(self, queue: Queue | str | None = None) -> Queue:
        """Return the definition of a queue: the app's own if it has one, else `plain_queue`."""
        if isinstance(queue, Queue):
            return queue
        name = queue or self.default_queue
        known = self._queues.get(name)
        return known if known is not None else plain_queue(name)

    def _find_queue(self, _name: str, options: Mapping[str, Any]) -> Queue:
        return self.queue(options.get("queue"))

    def _defaults(self, name: str) -> Mapping[str, Any]:
        task = self.find_task(name)
        return {} if task is None else task.send_options()

    # --- this process ----------------------------------------------------------------------------

    def use(self, *, broker: str | None = None, backend: str | None = None) -> None:
        """Replace broker or backend (unless None).

        Raises UsageError once this process has used the app's connection.
        """
        if os.getpid() in self._offices:
            raise UsageError(
                "the app is connected already; set its broker before it sends anything"
            )
        self.broker = broker or self.broker
        self.backend = backend or self.backend

    def connection(self) -> Connection:
        """Return this process's connection, which the app closes. Does not connect yet."""
        return self._office().connection

    def info(self) -> AppInfo:
        """Say what a worker must know of this app."""
        queues = dict(self._queues)
        for task in self.tasks.values():
            if isinstance(task.queue, Queue):
                queues.setdefault(task.queue.name, task.queue)
        return AppInfo(
            name=self.name,
            broker=self.broker,
            backend=self.backend,
            default_queue=self.default_queue,
            tasks=[task.info() for _, task in sorted({**self._builtin, **self.tasks}.items())],
            queues=list(queues.values()),
            accept=list(self.accept),
            result_ttl=self.result_ttl,
            steps={name: steps.paths for name, steps in self.steps.items()},
            commands=modules(),
        )

    @property
    def control(self) -> Control:
        """What gives its workers commands; see `queue_core.worker.control.client`."""
        if self._control is None:
            # A program that only sends tasks needs no mailbox, which takes a while to import.
            self._control = load(CONTROL)(self.connection)
        return self._control

    def close(self) -> None:
        """End this process's connection and its reply queue.

        May be called twice, and the app may be used again.
        """
        if self._control is not None:
            self._control.close()
        office = self._offices.pop(os.getpid(), None)
        if office is not None:
            office.close()

    def _office(self) -> Office:
        pid = os.getpid()
        office = self._offices.get(pid)
        if office is None:
            url = self.broker or os.environ.get(URL_VARIABLE)
            if not url:
                raise ConfigError(
                    "the app has no broker: App(broker='sqlite:///queue.db'), "
                    f"or the variable {URL_VARIABLE}"
                )
            office = Office(
                url,
                self.backend,
                composer=self.composer,
                find_task=self.find_task,
                hooks=self.hooks,
            )
            office = self._offices.setdefault(pid, office)
        return office

    def __repr__(self) -> str:
        """Name the app."""
        return f"<App {self.name!r} with {len(self._tasks)} tasks>"

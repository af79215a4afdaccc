"""An application: a name, a broker, and the tasks that it knows.

Making an app and its tasks connects to nothing, so that a module with tasks can be imported
anywhere. The first task that is sent opens this process's connection; a forked process opens its
own. Tasks travel as celery's protocol 2 (`queue_core.worker.protocol`), and the queues are declared
as celery declares them, so that its programs can work beside ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never, ParamSpec, TypeVar, Unpack

import msgspec

from queue_core import ConfigError, Connection, PerProcess, Queue, UsageError, counted
from queue_core.worker.app_settings import AppSettings, Packages, Settled, refuse_arguments
from queue_core.worker.blueprint import Steps, load
from queue_core.worker.builtin import builtin_tasks
from queue_core.worker.composing import Composer, SendOptions
from queue_core.worker.configuration import Level
from queue_core.worker.control.registry import modules
from queue_core.worker.current import make_current, shared
from queue_core.worker.declaring import Declare, define, name_of, write_down
from queue_core.worker.eager import run_eagerly
from queue_core.worker.failure import Errors
from queue_core.worker.hooks import Hooks, Middleware
from queue_core.worker.outcome import AppInfo
from queue_core.worker.parameters import check_arguments
from queue_core.worker.request import HOSTNAME, Request, current_request
from queue_core.worker.results.groups import GroupResult
from queue_core.worker.results.result import AsyncResult
from queue_core.worker.sending import Sender
from queue_core.worker.settings import Settings
from queue_core.worker.signature import Signature, as_signature
from queue_core.worker.task import Task

if TYPE_CHECKING:
    from queue_core.worker.control.client import Control

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Middleware)
E = TypeVar("E", bound=type[Exception])

CONTROL = "queue_core.worker.control.client:control_of"


class App:
    """Tasks and where they are sent. Thread-safe once its tasks are defined."""

    def __init__(
        self,
        name: str = "",
        *,
        broker: str | None = None,
        backend: str | None = None,
        default_queue: str | None = None,
        queues: Sequence[Queue] | Queue = (),
        include: Sequence[str] = (),
        serializer: str | None = None,
        accept: Sequence[str] | None = None,
        result_ttl: float | None = None,
        settings: object = None,
        **unknown: Never,
    ) -> None:
        """Keep the settings; nothing is connected. It becomes the current app.

        The environment, a file of settings and flags of the command line go before what is said
        here; see `queue_core.worker.configuration`.

        Args:
            name: for people.
            broker, backend, default_queue, queues, include, serializer, accept, result_ttl: the
                settings ``broker_url``, ``result_backend``, ``task_default_queue``,
                ``task_queues``, ``include``, ``task_serializer``, ``accept_content``,
                ``result_expires``; see `queue_core.worker.settings.Settings`.
            settings: whatever `config_from_object` takes; the arguments here go before it.

        Raises:
            ConfigError: a setting is unknown or wrong; or there is no such argument.
        """
        if unknown:
            refuse_arguments(unknown, type(self).__init__)
        if not isinstance(name, str):
            raise ConfigError(f"the name of an app is a string, not {name!r:.60}")
        self.name = name
        self.hostname = HOSTNAME
        """What requests and results say of where a task ran; a worker's name in a worker."""
        self._control: Control | None = None
        self.steps = {"worker": Steps(), "consumer": Steps()}
        """Steps that its workers have besides their own; see `queue_core.worker.blueprint`."""
        self.task = Declare(self._define)
        """The decorator that makes tasks; see `queue_core.worker.declaring`."""
        self.Task = Task
        """What base classes of tasks derive from."""
        self._tasks: dict[str, Task[..., Any]] = {}
        self._builtin = {task.name: task for task in builtin_tasks()}
        for task in self._builtin.values():
            task.bind_to(self)
        self._sender = PerProcess(self._open_sender)
        self._app_settings = AppSettings(self._own_options, self._configure_tasks)
        self._app_settings.say(
            Level.APP,
            f"App({name!r})",
            broker_url=broker,
            result_backend=backend,
            task_default_queue=default_queue,
            task_queues=queues or None,
            include=include or None,
            task_serializer=serializer,
            accept_content=accept,
            result_expires=result_ttl,
        )
        if settings is not None:
            self._app_settings.take(settings)
        self.hooks = Hooks()
        """Who hears of what it does; see `queue_core.worker.hooks`."""
        self.errors = Errors()
        """Which exceptions are made of failures; see `allow_error`."""
        make_current(self)

    @property
    def app(self) -> App:
        """Itself: what its tasks and signatures ask for."""
        return self

    # --- tasks -----------------------------------------------------------------------------------

    def _define(self, *args: Any, **named: Any) -> Task[..., Any]:
        return self.register_task(define(*args, **named, main=self.name))

    def register_task(self, task: Task[P, R]) -> Task[P, R]:
        """Know a task, such as an instance of a class with a ``run``; return it.

        Raises:
            ConfigError: it is none, or the name is taken by another one.
        """
        if not isinstance(task, Task):
            raise ConfigError(
                f"what is registered is an instance of a class derived from Task, not {task!r:.60}"
            )
        if not hasattr(task, "function"):
            task.define(None, name=task.name or name_of(type(task), self.name))
        write_down(self._tasks, task)
        task.bind_to(self)
        self.adopt(task)
        return task

    def adopt(self, task: Task[..., Any]) -> None:
        """Configure a task by the settings, if those are settled yet."""
        if (settled := self._app_settings.known) is not None:
            with settled.explaining("task_annotations"):
                task.configure(settled.settings)

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

        Raises:
            ConfigError: it cannot be called.
        """
        if not callable(function):
            raise ConfigError(f"middleware is a function, not {function!r:.60}")
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
            UsageError: the name, the arguments or an option are none.
            MessageError: an argument cannot be written; it is named.
            Unsupported: the broker cannot do what an option asks for, such as a countdown.
            QueueCoreError: see `queue_core.Producer.publish`.
        """
        if not isinstance(name, str) or not name:
            raise UsageError(f"the name of a task is a string, not {name!r:.60}")
        if not (isinstance(args, tuple | list) and (kwargs is None or isinstance(kwargs, dict))):
            check_arguments(name, args, kwargs)
        return self._send(Signature(name, list(args), dict(kwargs or {}), dict(options)))

    def send(self, signature: Signature[R]) -> AsyncResult[R]:
        """Send a signature: a task, or the first tasks of a chain, group or chord.

        Blocks until the broker has them, and raises as `send_task` does, and TypeError if this app
        knows the task, and it does not take the arguments. With the setting ``task_always_eager``
        they run here and now.
        """
        task = self.find_task(signature.task)
        if task is not None and task.typing:
            task.check(signature.args, signature.kwargs)
        return self._send(signature)

    def _send(self, signature: Signature[R]) -> AsyncResult[R]:
        settings = self.settings
        if not settings.task_always_eager:
            return self._sender.get().send(signature)
        result: AsyncResult[R] = self.run_eagerly(signature)
        if settings.task_eager_propagates:
            result.get()
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
        if self.settings.task_always_eager:
            return [self.send_task(name, args, **options) for args in calls]
        return self._sender.get().send_many(name, calls, options)

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
        _ = self.settings  # which configure the tasks
        return run_eagerly(self, signature)

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:  # noqa: N802 - celery's name
        """Return the handle on a task that was sent before.

        In an error link the failed task is known already.

        Raises:
            UsageError: the id is no string, or empty.
            Unsupported: results reach only the sender.
        """
        if not isinstance(task_id, str) or not task_id:
            raise UsageError(f"the id of a task is a string, not {task_id!r:.60}")
        request = self.request
        failed = None if request is None else request.failed
        if failed is not None and failed.id == task_id:
            return AsyncResult(task_id, errors=self.errors, result=failed.result)
        return self._sender.get().result_of(task_id)

    def GroupResult(self, group_id: str) -> GroupResult | None:  # noqa: N802 - as the other one
        """Return the group that `GroupResult.save` kept, None if there is none of this id.

        Raises Unsupported where there is no key-value store.
        """
        return self._sender.get().group_of(group_id)

    def allow_error(self, kind: E) -> E:
        """Let failures of tasks be exceptions of this class again where they are waited for.

        ``@app.allow_error`` before the class, which must take the arguments that its instances
        have in ``args``. What is not allowed is a `queue_core.RemoteError`.
        """
        return self.errors.allow(kind)

    # --- queues ----------------------------------------------------------------------------------

    def queue(self, queue: Queue | str | None = None) -> Queue:
        """Return the definition of a queue: the app's own if it has one, else a plain one.

        Raises UsageError if it has none, and ``task_create_missing_queues`` is False.
        """
        return self._app_settings.settled.rules.queues.find(queue)

    def _queue_names(self) -> list[str]:
        """Those that a worker takes from unless it is told otherwise."""
        info = self.info()
        names = [info.settings.task_default_queue, *(queue.name for queue in info.queues)]
        return list(dict.fromkeys(names))

    def _own_options(self, name: str) -> Mapping[str, Any]:
        task = self.find_task(name)
        return {} if task is None else task.send_options()

    # --- settings --------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings as they are now. The first time this reads file and environment.

        Raises ConfigError if something that was said is wrong.
        """
        return self._app_settings.settled.settings

    @property
    def conf(self) -> Settings:
        """The settings, by celery's name. To change them, use `config_from_object`."""
        return self.settings

    @property
    def settled(self) -> Settled:
        """The settings, where each was said, and what follows from them."""
        return self._app_settings.settled

    @property
    def broker(self) -> str | None:
        """The broker's URL, if any is said."""
        return self.settings.broker_url

    @property
    def backend(self) -> str | None:
        """Where results are kept, if that is said."""
        return self.settings.result_backend

    @property
    def composer(self) -> Composer:
        """What makes messages."""
        return self._app_settings.settled.composer

    def config_from_object(
        self, found: object, *, silent: bool = False, namespace: str = ""
    ) -> bool:
        """Take settings from a module, an object, a dict, or a TOML file; return whether it did.

        What was said before stays, unless this says something else. Names are celery's, of today
        or of old; see `queue_core.worker.settings.Settings`.

        Args:
            found: the name of a module, ``module:attribute``, the path of a TOML file, a dict, or
                any object whose attributes are settings.
            silent: a module that does not exist is no error.
            namespace: only names that begin with this and ``_`` are settings, such as ``CELERY``
                in the settings of a Django project.

        Raises:
            ConfigError: a name is unknown, with the nearest one; a value is wrong; a setting of
                celery's cannot be honoured. Says where.
            UsageError: the app is connected already.
        """
        self._check_unused()
        return self._app_settings.take(found, silent=silent, namespace=namespace)

    def config_from_envvar(self, variable: str, *, silent: bool = False) -> bool:
        """Take settings from the module or file that a variable of the environment names.

        Raises as `config_from_object`, and ConfigError if there is no such variable and not
        ``silent``.
        """
        self._check_unused()
        return self._app_settings.take_variable(variable, silent=silent)

    def autodiscover_tasks(self, packages: Packages, related_name: str | None = "tasks") -> None:
        """Let workers import ``package.tasks`` of each package that has it.

        ``packages`` may be a function that a worker calls; ``related_name`` is another name for
        the module; None: the packages themselves. Raises ConfigError if they are no names.
        """
        self._app_settings.discover(packages, related_name)

    def task_modules(self) -> Iterator[str]:
        """Return the names of the modules with tasks, which workers import."""
        return self._app_settings.task_modules()

    def _configure_tasks(self, settled: Settled) -> None:
        with settled.explaining("task_annotations"):
            for task in self.tasks.values():
                task.configure(settled.settings)

    # --- this process ----------------------------------------------------------------------------

    def use(self, *, broker: str | None = None, backend: str | None = None) -> None:
        """Replace broker or backend (unless None), whatever else is said of them.

        Raises UsageError once this process has used the app's connection.
        """
        self._check_unused()
        self._app_settings.say(
            Level.FLAG, "the command line", broker_url=broker, result_backend=backend
        )

    def _check_unused(self) -> None:
        if self._sender.peek() is not None:
            raise UsageError("the app is connected already; configure it before it sends anything")

    def connection(self) -> Connection:
        """Return this process's connection, which the app closes. Does not connect yet."""
        return self._sender.get().connection

    def info(self) -> AppInfo:
        """Say what a worker must know of this app."""
        settled = self._app_settings.settled
        self._configure_tasks(settled)
        settings = settled.settings
        named = [task.queue for task in self.tasks.values()]
        asked = [settled.rules.asked(name) for name in self.tasks]
        said = (*settled.rules.router.queues(), *asked, *named, *settings.task_queues)
        queues = {queue.name: queue for queue in said if isinstance(queue, Queue)}
        return AppInfo(
            name=self.name,
            tasks=[
                settled.rules.placed(task.info())
                for _, task in sorted({**self._builtin, **self.tasks}.items())
            ],
            queues=list(queues.values()),
            steps={name: steps.paths for name, steps in self.steps.items()},
            commands=modules(),
            hooks=self.hooks.paths,
            settings=msgspec.structs.replace(
                settings, task_routes=settled.rules.router.portable(), task_annotations=None
            ),
        )

    @property
    def control(self) -> Control:
        """What gives its workers commands; see `queue_core.worker.control.client`."""
        if self._control is None:
            # A program that only sends tasks needs no mailbox, which takes a while to import.
            self._control = load(CONTROL)(self.connection, self.settings, self._queue_names)
        return self._control

    def close(self) -> None:
        """End this process's connection and its reply queue.

        May be called twice, and the app may be used again.
        """
        if self._control is not None:
            self._control.close()
        sender = self._sender.take()
        if sender is not None:
            sender.close()

    def _open_sender(self) -> Sender:
        settled = self._app_settings.settled
        return Sender(
            settled.settings,
            composer=settled.composer,
            find_task=self.find_task,
            hooks=self.hooks,
            revoke=self._revoke,
            errors=self.errors,
        )

    def _revoke(self, ids: Sequence[str], /, *, terminate: bool, signal: str) -> None:
        self.control.revoke(list(ids), terminate=terminate, signal=signal)

    def __repr__(self) -> str:
        """Name the app."""
        return f"<App {self.name!r} with {counted(len(self._tasks), 'task')}>"

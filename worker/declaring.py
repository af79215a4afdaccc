"""``@app.task`` and ``@shared_task``: from a function to a task with a name of its own."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, overload

from queue_core import ConfigError
from queue_core.worker.options import TaskOptions
from queue_core.worker.task import Task

P = ParamSpec("P")
R = TypeVar("R")

Book = MutableMapping[str, Task[..., Any]]
"""Tasks by their names."""


class Declare:
    """A decorator that makes tasks of functions: ``@app.task`` or ``@app.task(queue="mail")``.

    Both the arguments of ``delay`` and the type of its result are those of the function.
    """

    def __init__(self, define: Callable[..., Task[..., Any]]) -> None:
        """``define`` is called with the function, and name, base, bind and options by name."""
        self._define = define

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def __call__(
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
    def __call__(
        self,
        function: None = None,
        /,
        *,
        bind: Literal[False] = False,
        name: str | None = None,
        base: type[Task[..., Any]] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        bind: bool = False,
        name: str | None = None,
        base: type[Task[..., Any]] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Make a task of a function.

        Args:
            function: the function, when used without parentheses.
            bind: give the function its task as the first argument, ``self``.
            name: on the wire; ``module.function`` if None.
            base: a subclass of `Task`, whose hooks and options it gets.
            options: see `TaskOptions`.

        Raises:
            ConfigError: the name is taken by another function, an option is unknown or wrong, or
                no task can be made of this.
        """

        def define(target: Callable[..., Any]) -> Task[..., Any]:
            return self._define(target, name=name, base=base, bind=bind, options=options)

        return define if function is None else define(function)


def define(
    target: object,
    *,
    name: str | None,
    base: type[Task[..., Any]] | None,
    bind: bool,
    options: TaskOptions,
    main: str = "",
) -> Task[..., Any]:
    """Return a new task of a function; ``main`` stands for the module of a program.

    Raises ConfigError if an argument is none for it.
    """
    if not callable(target):
        named = f"; for its name write name={target!r}" if isinstance(target, str) else ""
        raise ConfigError(f"a task is made of a function, not of {target!r:.60}{named}")
    if not isinstance(name, str | None):
        raise ConfigError(f"name is a string, not {name!r:.60}")
    if not isinstance(bind, bool):
        raise ConfigError(f"bind is True or False, not {bind!r:.60}")
    if base is not None and not (isinstance(base, type) and issubclass(base, Task)):
        raise ConfigError(f"base is a class derived from Task, not {base!r:.60}")
    task = (base or Task)()
    called = name or task.name or name_of(target, main)
    return task.define(target, name=called, bind=bind, options=options)


def name_of(target: Callable[..., Any], main: str = "") -> str:
    """Return what a function or class is called as a task: ``module.function``.

    Raises ConfigError for an object that has no name, such as a partial.
    """
    if not hasattr(target, "__qualname__"):
        raise ConfigError(f"{target!r:.60} has no name of its own; give the task one: name=...")
    module = target.__module__
    if module == "__main__" and main:
        module = main
    return f"{module}.{target.__qualname__.replace('<locals>.', '')}"


def write_down(book: Book, task: Task[..., Any]) -> None:
    """Know a task by its name.

    Raises:
        ConfigError: the name is taken by another one.
    """
    known = book.get(task.name)
    if known is not None and _place(known) != _place(task):
        raise ConfigError(
            f"two functions want to be task {task.name!r}; give one of them another name="
        )
    book[task.name] = task


def _place(task: Task[..., Any]) -> str:
    """What stays the same when a module is imported again."""
    return getattr(task.origin, "__qualname__", type(task.origin).__qualname__)

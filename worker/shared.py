"""``@shared_task``: a task of a module that does not know the app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, overload

from queue_core import ConfigError
from queue_core.worker.current import shared
from queue_core.worker.task import Task, TaskOptions

P = ParamSpec("P")
R = TypeVar("R")


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(
    function: None = None,
    /,
    *,
    bind: Literal[True],
    name: str | None = None,
    base: type[Task[..., Any]] | None = None,
    **options: Unpack[TaskOptions],
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...


@overload
def shared_task(
    function: None = None,
    /,
    *,
    bind: Literal[False] = False,
    name: str | None = None,
    base: type[Task[..., Any]] | None = None,
    **options: Unpack[TaskOptions],
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    bind: bool = False,
    name: str | None = None,
    base: type[Task[..., Any]] | None = None,
    **options: Unpack[TaskOptions],
) -> Any:
    """Make a task that every app of this process knows; sent by whichever is the current one.

    Takes what `App.task` takes, and raises what it raises.
    """

    def define(target: Callable[..., Any]) -> Task[..., Any]:
        task = (base or Task)()
        called = name or f"{target.__module__}.{target.__qualname__.replace('<locals>.', '')}"
        known = shared.get(called)
        if known is not None and known.origin.__qualname__ != target.__qualname__:
            raise ConfigError(
                f"two functions want to be shared task {called!r}; give one of them another name="
            )
        shared[called] = task.define(target, name=called, bind=bind, options=options)
        return task

    return define if function is None else define(function)

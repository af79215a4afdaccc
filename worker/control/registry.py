"""Commands for remote control that an app adds to those of every worker.

::

    from queue_core.worker.control import control_command, inspect_command

    @inspect_command
    def queues_here(consumer) -> list[str]:
        "The names of the queues that this worker takes from."
        return list(consumer.queues)

The first parameter is the worker's `queue_core.worker.consumer.consumer.TaskConsumer`; the others
are the command's arguments, and are checked against their annotations. A command runs in the
worker's own process, which imports the module that it stands in; a module for commands alone keeps
the rest of the app out of there.

The list of them belongs to the whole process, and is read when a worker starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

H = TypeVar("H", bound=Callable[..., Any])

_commands: list[tuple[Callable[..., Any], dict[str, Any]]] = []


@overload
def inspect_command(function: H, /) -> H: ...


@overload
def inspect_command(**options: Any) -> Callable[[H], H]: ...


def inspect_command(function: Any = None, /, **options: Any) -> Any:
    """Add a command that only reads. Options as in `queue_core.mailbox.Panel.register`."""
    return _decorate("inspect", function, options)


@overload
def control_command(function: H, /) -> H: ...


@overload
def control_command(**options: Any) -> Callable[[H], H]: ...


def control_command(function: Any = None, /, **options: Any) -> Any:
    """Add a command that changes something. Options as in `queue_core.mailbox.Panel.register`."""
    return _decorate("control", function, options)


def _decorate(kind: Literal["inspect", "control"], function: Any, options: dict[str, Any]) -> Any:
    def register(handler: H) -> H:
        place = (handler.__module__, handler.__qualname__)
        _commands[:] = [
            item for item in _commands if (item[0].__module__, item[0].__qualname__) != place
        ]  # its module was imported again
        _commands.append((handler, {"kind": kind, **options}))
        return handler

    return register if function is None else register(function)


def registered() -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    """Return the handlers, each with how to register it."""
    return list(_commands)


def modules() -> list[str]:
    """Return the names of the modules that commands stand in."""
    return list(dict.fromkeys(handler.__module__ for handler, _ in _commands))

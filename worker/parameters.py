"""What a task can be called with: looked at where a call is sent, not where it runs. Pure."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from queue_core import ConfigError, UsageError


class Parameters:
    """The parameters of a task's function. As a string, its signature: ``(x: int, y=2)``."""

    __slots__ = ("_by_place", "_signature")

    def __init__(self, function: Callable[..., Any], *, bound: bool = False) -> None:
        """Read the function's signature; if it is ``bound``, without its first parameter.

        Raises ConfigError if it has none.
        """
        try:
            signature = inspect.signature(function)
        except ValueError as error:
            raise ConfigError(
                f"what {function!r:.60} takes cannot be told; wrap it in a function with def"
            ) from error
        self._signature = _without_self(signature) if bound else signature
        self._by_place = _by_place(self._signature)

    def check(
        self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Raise TypeError if these arguments do not fit; ``task`` is the name that it shall say."""
        try:
            if kwargs or len(args) not in self._by_place:
                self._signature.bind(*args, **(kwargs or {}))
        except TypeError as error:
            check_arguments(task, args, kwargs)
            shown = f"{task}{self._signature}"
            raise TypeError(f"task {task}: {error}; its signature is {shown}") from None

    def __str__(self) -> str:
        """Show the signature."""
        return str(self._signature)


def check_arguments(task: str, args: object, kwargs: object) -> None:
    """Raise UsageError unless these can be the arguments of a call, by place and by name."""
    if isinstance(args, str | bytes) or not isinstance(args, Iterable):
        raise UsageError(
            f"the arguments of task {task} are a sequence, not {args!r:.60}; write [{args!r:.60}]"
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise UsageError(
            f"the arguments by name of task {task} are a mapping, not {kwargs!r:.60}; those by "
            "place are one sequence: [1, 2]"
        )


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    ):
        raise ConfigError(
            "with bind=True the function takes its task as the first argument: def name(self)"
        )
    taken = parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL
    return signature.replace(parameters=parameters[taken:])


def _by_place(signature: inspect.Signature) -> range:
    """How many positional arguments alone fit this signature; empty: never any."""
    least = most = 0
    for parameter in signature.parameters.values():
        required = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = sys.maxsize - 1
        elif parameter.kind is parameter.KEYWORD_ONLY and required:
            return range(0)
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            least += required
            most += 1
    return range(least, most + 1)

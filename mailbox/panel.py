"""What nodes can be asked: a registry of commands, each with what a caller must know about it.

A handler takes the node's state and then its arguments by name::

    panel = Panel()

    @panel.inspect_command
    def uptime(state, unit: str = "s") -> float:
        "How long this node has been running."

Arguments are checked against the handler's annotations before it runs, so that a wrong one is an
answer that says what was wrong, and not a traceback from inside. Text that a command line sends is
converted where the annotation wants a number or a truth value.

Three kinds: ``inspect`` reads, ``control`` changes, ``admin`` ends or endangers. Where keys are
configured, the last two need one.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, TypeVar, overload

import msgspec

from queue_core import ConfigError, check_count, check_kind, nearest, need_seconds
from queue_core.mailbox.arguments import check_command

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
Kind = Literal["inspect", "control", "admin"]
KINDS: Final[tuple[Kind, ...]] = ("inspect", "control", "admin")


class BadArguments(Exception):  # noqa: N818 - becomes an answer
    """The command exists, and cannot be called with these arguments."""


class Argument(msgspec.Struct, frozen=True):
    """One argument of a command: its name, its declared type, and whether it must be given."""

    name: str
    type: Any
    required: bool


class Meta(msgspec.Struct, frozen=True):
    """What is known about a command.

    Attributes:
        name: what callers say.
        kind: ``inspect``, ``control`` or ``admin``.
        arguments: those that it takes, in order.
        variadic: the name of the argument that takes all words of a command line that are left.
        signature: how to call it, for people.
        help: the first paragraph of the handler's docstring.
        alias: another name for it.
        default_timeout: seconds that a caller waits for it if nothing else was said.
        visible: lists of commands show it.
        journal: seconds that nodes which start later learn of it; 0 is never.
        concurrency: how many of it may run at once on one node; others wait. 0 is for one that
            waits for nothing itself: it runs where commands are taken, sooner than on another
            thread, and even when all of those are busy.
    """

    name: str
    kind: Kind
    arguments: tuple[Argument, ...] = ()
    variadic: str | None = None
    signature: str = ""
    help: str = ""
    alias: str | None = None
    default_timeout: float = 1.0
    visible: bool = True
    journal: float = 0.0
    concurrency: int = 1


class Entry(msgspec.Struct, frozen=True):
    """A handler, what is known about it, and whether it takes arguments that it does not name."""

    meta: Meta
    handler: Handler
    open: bool = False

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the declared types.

        Raises:
            BadArguments: one is missing, unknown, or of another type; the text names it.
        """
        known = {argument.name: argument for argument in self.meta.arguments}
        bound = {name: value for name, value in arguments.items() if name not in known}
        if bound and not self.open:
            raise BadArguments(
                f"{self.meta.name} takes no argument {next(iter(bound))!r}; call it as: "
                f"{self.meta.signature}"
            )
        for name, argument in known.items():
            if name in arguments:
                bound[name] = self._convert(argument, arguments[name])
            elif argument.required:
                raise BadArguments(
                    f"{self.meta.name} needs the argument {name!r}; call it as: "
                    f"{self.meta.signature}"
                )
        return bound

    def _convert(self, argument: Argument, value: Any) -> Any:
        if argument.type is Any:
            return value
        try:
            return msgspec.convert(value, argument.type, strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            raise BadArguments(
                f"{self.meta.name}: the argument {argument.name!r} is wrong: {error}"
            ) from error


class Panel:
    """A set of commands. Fill it before nodes that use it start."""

    def __init__(self, *parents: Panel) -> None:
        """Begin with the commands of other panels; later additions to them are not seen."""
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}
        for parent in parents:
            for entry in parent:
                self._add(entry)

    @property
    def data(self) -> dict[str, Handler]:
        """The handlers by name."""
        return {name: entry.handler for name, entry in self._entries.items()}

    @property
    def meta(self) -> dict[str, Meta]:
        """What is known about each command, by name."""
        return {name: entry.meta for name, entry in self._entries.items()}

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the commands in the order of their registration."""
        return iter(list(self._entries.values()))

    def __contains__(self, name: object) -> bool:
        """Whether there is a command of this name or alias."""
        return name in self._entries or name in self._aliases

    def find(self, name: str) -> Entry:
        """Return a command by its name or alias.

        Raises:
            KeyError: there is none; its text names the nearest.
        """
        entry = self._entries.get(self._aliases.get(name, name))
        if entry is None:
            near = nearest(name, [*self._entries, *self._aliases])
            advice = f"; did you mean {near!r}?" if near else ""
            raise KeyError(f"there is no command {name!r}{advice}")
        return entry

    @overload
    def inspect_command(self, handler: H, /) -> H: ...

    @overload
    def inspect_command(self, /, **options: Any) -> Callable[[H], H]: ...

    def inspect_command(self, handler: Any = None, /, **options: Any) -> Any:
        """Register a handler that only reads. Options as in `register`."""
        return self._decorate("inspect", handler, options)

    @overload
    def control_command(self, handler: H, /) -> H: ...

    @overload
    def control_command(self, /, **options: Any) -> Callable[[H], H]: ...

    def control_command(self, handler: Any = None, /, **options: Any) -> Any:
        """Register a handler that changes something. Options as in `register`."""
        return self._decorate("control", handler, options)

    def _decorate(self, kind: Kind, handler: Any, options: dict[str, Any]) -> Any:
        kind = options.pop("kind", kind)

        def register(function: H) -> H:
            self.register(function, kind=kind, **options)
            return function

        return register if handler is None else register(handler)

    def register(
        self,
        handler: Handler,
        *,
        kind: Kind = "inspect",
        name: str | None = None,
        alias: str | None = None,
        signature: str | None = None,
        help: str | None = None,  # noqa: A002 - what people call it
        default_timeout: float = 1.0,
        visible: bool = True,
        variadic: str | None = None,
        journal: float = 0.0,
        concurrency: int = 1,
    ) -> Meta:
        """Add a command.

        Args:
            handler: called as ``handler(state, **arguments)``; what it returns is the answer, what
                it yields is a stream of answers.
            kind: ``inspect``, ``control`` or ``admin``.
            name, signature, help: taken from the function if None.
            alias, default_timeout, visible, variadic, journal, concurrency: see `Meta`.

        Raises:
            ConfigError: the name is taken, the handler has no parameter for the state, or an option
                is none.
        """
        if kind not in KINDS:
            raise ConfigError(f"kind is one of {', '.join(KINDS)}, not {kind!r:.60}")
        need_seconds("default_timeout", default_timeout)
        need_seconds("journal", journal, zero=True)
        check_kind("concurrency", concurrency, int, "a whole number")
        check_count("concurrency", concurrency, 0)
        arguments, takes_any = _arguments(handler)
        name = getattr(handler, "__name__", "") if name is None else name
        check_command(name)
        text = inspect.getdoc(handler) or ""
        meta = Meta(
            name,
            kind,
            arguments,
            variadic,
            signature or " ".join([name, *(_usage(a, variadic) for a in arguments)]),
            help if help is not None else " ".join(text.partition("\n\n")[0].split()),
            alias,
            default_timeout,
            visible,
            journal,
            concurrency,
        )
        self._add(Entry(meta, handler, takes_any))
        return meta

    def _add(self, entry: Entry) -> None:
        meta = entry.meta
        for name in (meta.name, meta.alias):
            if name is not None and name in self:
                raise ConfigError(
                    f"there is a command {name!r} already; give this one another name"
                )
        self._entries[meta.name] = entry
        if meta.alias is not None:
            self._aliases[meta.alias] = meta.name


def _arguments(handler: Handler) -> tuple[tuple[Argument, ...], bool]:
    """Return the named arguments after the state, and whether others are taken too."""
    if not callable(handler):
        raise ConfigError(f"a handler is a function, not {handler!r:.60}")
    parameters = list(inspect.signature(handler).parameters.values())
    if not parameters:
        raise ConfigError(
            f"the handler {handler.__qualname__} takes no state; its first parameter is the state "
            "that the node was given"
        )
    hints = typing.get_type_hints(handler)
    named = tuple(
        Argument(
            parameter.name,
            hints.get(parameter.name, Any),
            parameter.default is inspect.Parameter.empty,
        )
        for parameter in parameters[1:]
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    )
    return named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _usage(argument: Argument, variadic: str | None) -> str:
    text = argument.name.upper() + ("..." if argument.name == variadic else "")
    return text if argument.required else f"[{text}]"

"""A call that has not been made yet: a task's name, arguments and options, as a value.

Pure: a signature is data until `Signature.apply_async` sends it. On the wire it is the object that
celery's programs know, so that theirs and ours can hand links and chains to one another. As with
theirs, `set`, `link` and `link_error` change the signature itself, and `clone` makes another one;
nothing else changes it, sending it neither.

Chains, groups and chords are signatures too, of tasks that are called ``celery.chain`` and so on
(`queue_core.worker.canvas`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from queue_core import DecodeError, Queue, UsageError
from queue_core.worker.envelopes import ENVELOPES, enclosed
from queue_core.worker.protocol import Wire

if TYPE_CHECKING:
    from queue_core.worker.results.result import AsyncResult

R = TypeVar("R")

CHAIN, GROUP, CHORD = "celery.chain", "celery.group", "celery.chord"
CANVAS = frozenset({CHAIN, GROUP, CHORD})
NO_LINK = "a group has no single result to link to; use group | callback"
_FIELDS = ("args", "kwargs", "options", "subtask_type", "immutable", "chord_size")


class Owner(Protocol):
    """What a signature belongs to: a task, or an app."""

    @property
    def app(self) -> SignatureSender:
        """The app. Raises UsageError if there is none."""


class SignatureSender(Protocol):
    """What a signature needs of its app."""

    def send(self, signature: Signature[Any]) -> AsyncResult[Any]:
        """Send the signature; see `App.send`."""

    def call(self, signature: Signature[Any]) -> Any:
        """Run the task of the signature here and now; see `App.call`."""

    def run_eagerly(self, signature: Signature[Any]) -> AsyncResult[Any]:
        """Run the signature and what follows it here; see `App.run_eagerly`."""


@runtime_checkable
class MakesSignatures(Protocol):
    """A task: wherever a signature is wanted, it stands for the one without arguments."""

    def s(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Return a signature with these arguments."""

    def si(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Return one that takes no others."""


class Signature(msgspec.Struct, Generic[R], dict=True):
    """A task with some of its arguments, and how it shall be sent.

    Attributes:
        task: the name of the task.
        args, kwargs: arguments; those that are given later come before ``args`` and over
            ``kwargs``, unless ``immutable``.
        options: as `queue_core.worker.composing.SendOptions`, and what canvas adds.
        subtask_type: ``chain``, ``group`` or ``chord``; None for a single task.
        immutable: takes no arguments from what comes before it.
        chord_size: of a chord's body: how many parts its header has.
    """

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    options: dict[str, Any] = {}
    subtask_type: str | None = None
    immutable: bool = False
    chord_size: int | msgspec.UnsetType = msgspec.UNSET

    # --- making others ---------------------------------------------------------------------------

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[R]:
        """Return a copy with these arguments before its own, and these options over its own.

        An immutable one takes options only. Members of a chain, group or chord are shared.
        """
        if self.immutable:
            args, kwargs = (), None
        own = dict(self.kwargs)
        if kwargs and self.task in CANVAS:  # they are for the members
            own["kwargs"] = {**(own.get("kwargs") or {}), **kwargs}
        elif kwargs:
            own.update(kwargs)
        copy: Signature[R] = Signature(
            self.task,
            [*args, *self.args],
            own,
            {**self.options, **options},
            self.subtask_type,
            self.immutable,
            self.chord_size,
        )
        for several in ("link", "link_error"):  # the copy's links are its own
            if several in copy.options:
                copy.options[several] = as_list(copy.options[several])
        if "owner" in self.__dict__:
            copy.__dict__["owner"] = self.__dict__["owner"]
        return copy

    def __copy__(self) -> Signature[R]:
        """Return a `clone`."""
        return self.clone()

    def set(self, *, immutable: bool | None = None, **options: Any) -> Signature[R]:
        """Set options, and perhaps ``immutable``, in this signature; return it."""
        if immutable is not None:
            self.immutable = immutable
        self.options.update(options)
        return self

    def link(self, callback: Signature[Any] | MakesSignatures) -> Signature[Any]:
        """Send ``callback`` with the result when the task has succeeded; return ``callback``."""
        if self.subtask_type == "group":
            raise UsageError(NO_LINK)
        return self._add("link", callback)

    def link_error(self, errback: Signature[Any] | MakesSignatures) -> Signature[Any]:
        """Send ``errback`` when the task has failed for good; return ``errback``."""
        return self._add("link_error", errback)

    def on_error(self, errback: Signature[Any] | MakesSignatures) -> Signature[R]:
        """As `link_error`, but return this signature, for use in an expression."""
        self.link_error(errback)
        return self

    def _add(self, option: str, other: Signature[Any] | MakesSignatures) -> Signature[Any]:
        signature = as_signature(other)
        linked = as_list(self.options.get(option))
        if signature not in linked:
            linked.append(signature)
        self.options[option] = linked
        return signature

    # --- using it --------------------------------------------------------------------------------

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """Send it with more arguments; blocks and raises as `App.send_task` does."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Send it with more arguments and options; blocks and raises as `App.send_task` does.

        The result of a chain is that of its last task, with the others as its ``parent``; that of a
        group is a `GroupResult`; that of a chord is its body's.
        """
        return self._sender().send(self.clone(args, kwargs, **options))

    def apply(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[R]:
        """Run it, and what follows it, here and now: links, retries and chains too."""
        return self._sender().run_eagerly(self.clone(args, kwargs, **options))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a task here and now and return its result; send a chain, group or chord.

        A chord that has no body yet takes it as its first argument.
        """
        if self.subtask_type is None:
            return self._sender().call(self.clone(args, kwargs))
        if self.subtask_type == "chord" and args and self.kwargs.get("body") is None:
            body, *rest = args
            with_body = self.clone(rest)
            with_body.kwargs = {**with_body.kwargs, "body": body}
            return with_body.apply_async(kwargs=kwargs)
        return self.apply_async(args, kwargs)

    # --- data ------------------------------------------------------------------------------------

    @property
    def id(self) -> str | None:
        """The id that it will have when it is sent, if that is known already."""
        return cast(str | None, self.options.get("task_id"))

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.task

    def as_wire(self) -> Wire:
        """Return it as it travels: plain values, and every signature in it as an object."""
        wire: Wire = {
            "task": self.task,
            "args": plain(self.args),
            "kwargs": plain(self.kwargs),
            "options": plain(self.options),
            "subtask_type": self.subtask_type,
            "immutable": self.immutable,
        }
        if self.chord_size is not msgspec.UNSET:
            wire["chord_size"] = self.chord_size
        return wire

    def bound(self, owner: Owner) -> Signature[R]:
        """Let the app of ``owner`` send it; return it."""
        self.__dict__["owner"] = owner
        return self

    @property
    def owner(self) -> Owner | None:
        """What it belongs to: its own owner, or that of the first signature in it with one."""
        own: Owner | None = self.__dict__.get("owner")
        if own is not None:
            return own
        inner = [*members(self), *as_list(self.kwargs.get("task") if self.immutable else None)]
        return next(
            (found for part in inner if isinstance(part, Signature) and (found := part.owner)),
            None,
        )

    def _sender(self) -> SignatureSender:
        owner = self.owner
        if owner is None and self.task == GROUP and not members(self):
            raise UsageError("a group needs a task")
        if owner is None:
            raise UsageError(
                f"the signature of {self.task} belongs to no app; make it with task.s() or "
                "app.signature()"
            )
        return owner.app

    def __or__(self, other: Signature[Any] | MakesSignatures) -> Signature[Any]:
        """Return the chain of the two."""
        if not isinstance(other, Signature | MakesSignatures):
            return NotImplemented
        return join([self, as_signature(other)])

    def __repr__(self) -> str:
        """Show the call, or the members."""
        if self.subtask_type == "chain":
            return " | ".join(repr(part) for part in members(self))
        if self.subtask_type is not None:
            return f"{self.subtask_type}({', '.join(repr(part) for part in members(self))})"
        given = [repr(value) for value in self.args]
        given += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.task}({', '.join(given)})"


def as_signature(value: Any) -> Signature[Any]:
    """Return the signature that ``value`` is, makes, or describes as an object on the wire.

    Raises:
        DecodeError: it does not.
    """
    if isinstance(value, Signature):
        return value
    if isinstance(value, MakesSignatures):
        return value.s()
    if not isinstance(value, Mapping) or not isinstance(value.get("task"), str):
        raise DecodeError("not a signature: an object with a 'task' was expected")
    try:
        return msgspec.convert(
            {"task": value["task"]}
            | {name: value[name] for name in _FIELDS if value.get(name) is not None},
            Signature[Any],
        )
    except msgspec.ValidationError as error:
        raise DecodeError(f"a signature of {value['task']!r} is damaged: {error}") from None


def members(signature: Signature[Any]) -> list[Signature[Any]]:
    """Return the parts of a chain, group or chord (its body last); none of a single task.

    Raises:
        DecodeError: one of them is no signature.
    """
    kwargs = signature.kwargs
    if signature.task in (CHAIN, GROUP):
        return [as_signature(part) for part in as_list(kwargs.get("tasks"))]
    if signature.task == CHORD:
        body = kwargs.get("body")
        return [*header(signature), *([] if body is None else [as_signature(body)])]
    return []


def header(chord: Signature[Any]) -> list[Signature[Any]]:
    """Return the parts of a chord's header, which is a list on the wire, or a group."""
    found = chord.kwargs.get("header")
    if isinstance(found, Signature) or (isinstance(found, Mapping) and "task" in found):
        single = as_signature(found)
        return members(single) if single.task == GROUP else [single]
    return [as_signature(part) for part in as_list(found)]


def join(parts: Iterable[Signature[Any]]) -> Signature[Any]:
    """Return the chain of ``parts``; chains among them are taken apart, one alone is itself."""
    flat: list[Signature[Any]] = []
    for part in parts:
        flat += members(part) if _is_plain_chain(part) else [part]
    if len(flat) == 1:
        return flat[0]
    return Signature(CHAIN, [], {"tasks": flat}, {}, "chain")


def _is_plain_chain(part: Signature[Any]) -> bool:
    return part.task == CHAIN and not part.args and not part.options


def as_list(value: Any) -> list[Any]:
    """Return a new list of ``value``, which may be one item, several, or None."""
    if value is None:
        return []
    if isinstance(value, list | tuple | frozenset):
        return list(value)
    if isinstance(value, Signature | Mapping | str | MakesSignatures):
        return [value]
    return list(value) if isinstance(value, Iterable) else [value]


def plain(value: Any) -> Any:
    """Return ``value`` with every signature in it as an object, and every queue as its name.

    Dates and the like are in their envelopes.
    """
    kind = type(value)
    if kind in _ALREADY_PLAIN:
        return value
    if isinstance(value, _SEQUENCES):  # these first: nearly all is one of them
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if (envelope := ENVELOPES.get(kind)) is not None:
        return envelope(value)
    if isinstance(value, Signature):
        return value.as_wire()
    if isinstance(value, MakesSignatures):
        return value.s().as_wire()
    return value.name if isinstance(value, Queue) else enclosed(value)


_SEQUENCES = (list, tuple)
_ALREADY_PLAIN = frozenset({str, int, float, bool, type(None)})

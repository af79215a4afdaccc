"""Commands and replies on the wire: celery's pidbox format, and a few headers of our own beside it.

A command is a JSON object in a message to the namespace's exchange, or straight to one node's
queue; a reply is ``{node: value}`` to the address that the command names. kombu's and celery's
programs understand both, and we theirs; what only we say stands in headers that begin with ``qc-``,
which they ignore.

Everything here is pure. What comes from outside is checked: a body that is no command is a
`Malformed`, which the node counts and drops.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from queue_core import Message, MessageError
from queue_core.mailbox.matching import BadPattern, check, matches

ReplyKind = Literal["value", "item", "end", "error", "expired", "refused"]
"""What a reply says: the value; one of several and that there are no more; or why there is none."""

KINDS: Final[tuple[ReplyKind, ...]] = ("value", "item", "end", "error", "expired", "refused")

CALL: Final = 1
"""The priority of a command that somebody waits for; that of the others is 0."""

MAX_WORD: Final = 255
"""Letters of a method, a ticket, a key's name and a signature; bytes of a routing key."""

MATCHERS: Final = ("glob", "pcre")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Malformed(Exception):  # noqa: N818 - never leaves the package
    """The message is no command or no reply."""


class Address(msgspec.Struct, frozen=True):
    """Which nodes a command is for: all of those that every given condition is true of.

    Attributes:
        names: these nodes; None is all.
        pattern: their names match it, as ``matcher`` says.
        matcher: ``glob`` (``*``, ``?``, ``[...]``, case counts) or ``pcre`` (a regular expression
            that matches from the beginning of the name); see `queue_core.mailbox.matching`.
        labels: they carry all of these labels.
    """

    names: tuple[str, ...] | None = None
    pattern: str | None = None
    matcher: str | None = None
    labels: Mapping[str, str] = {}

    def includes(self, name: str, labels: Mapping[str, str]) -> bool:
        """Return whether a node of this name and with these labels is meant."""
        if self.names is not None and name not in self.names:
            return False
        if self.pattern is not None and not matches(self.matcher or "", self.pattern, name):
            return False
        return all(labels.get(key) == value for key, value in self.labels.items())


class ReplyAddress(msgspec.Struct, frozen=True):
    """Where replies go: an exchange and a routing key.

    Ours name the caller's queue, through the default exchange; celery's the namespace's exchange
    for replies, to which their queue is bound.
    """

    exchange: str
    routing_key: str

    def belongs_to(self, namespace: str) -> bool:
        """Return whether a caller can be there: nobody shall have nodes write elsewhere."""
        if self.exchange:
            return self.exchange == reply_exchange(namespace)
        return self.routing_key.endswith(f".{reply_exchange(namespace)}")


class Command(msgspec.Struct, frozen=True):
    """What a node is asked or told.

    Attributes:
        method: the command's name.
        arguments: by name.
        ticket: names this command; a node runs it once. Empty when an old client sent none.
        address: who it is for.
        reply_to: where the caller waits; None for a cast.
        ttl: seconds from sending until it is not worth running; None is for ever.
        expires: celery's form of it: seconds since 1970 on the sender's clock.
        clock: the sender's logical time.
        peers: the caller wants to hear which other nodes there are.
        key: the name of the key that signed it; empty if it is not signed.
        signed_at: seconds since 1970 on the signer's clock.
        signature: see `queue_core.mailbox.signing`.
    """

    method: str
    arguments: Mapping[str, Any]
    ticket: str
    address: Address = Address()
    reply_to: ReplyAddress | None = None
    ttl: float | None = None
    expires: float | None = None
    clock: object = None
    peers: bool = False
    key: str = ""
    signed_at: float = 0.0
    signature: str = ""

    def body(self) -> dict[str, Any]:
        """Return what the message carries, ready for the serializer."""
        address = self.address
        body: dict[str, Any] = {
            "method": self.method,
            "arguments": dict(self.arguments),
            "destination": None if address.names is None else list(address.names),
            "pattern": address.pattern,
            "matcher": address.matcher,
            "ticket": self.ticket,
        }
        if self.reply_to is not None:
            body["reply_to"] = {
                "exchange": self.reply_to.exchange,
                "routing_key": self.reply_to.routing_key,
            }
        return body

    def headers(self) -> dict[str, Any]:
        """Return the headers of the message."""
        headers: dict[str, Any] = {"clock": self.clock, "expires": self.expires or 0}
        if self.ttl is not None:
            headers["qc-ttl"] = self.ttl
        if self.address.labels:
            headers["qc-labels"] = dict(self.address.labels)
        if self.peers:
            headers["qc-peers"] = True
        if self.key:
            headers |= {
                "qc-key": self.key,
                "qc-signed-at": self.signed_at,
                "qc-signature": self.signature,
            }
        return headers


class Reply(msgspec.Struct, frozen=True):
    """One node's answer.

    Attributes:
        node: who answers.
        ticket: the command's.
        kind: see `ReplyKind`.
        value: the value or item; for the other kinds a text.
        error: the name of the error's type, for ``error``.
        index: which item of a stream, from 0.
        clock: the node's logical time.
        peers: the names of the nodes that it knows, if it was asked.
    """

    node: str
    ticket: str
    kind: ReplyKind = "value"
    value: Any = None
    error: str = ""
    index: int = 0
    clock: object = None
    peers: tuple[str, ...] | None = None

    def body(self) -> dict[str, Any]:
        """Return what the message carries; celery's programs know errors by their shape."""
        value = self.value if self.kind in ("value", "item", "end") else {"error": self.value}
        return {self.node: value}

    def headers(self) -> dict[str, Any]:
        """Return the headers of the message."""
        headers: dict[str, Any] = {
            "ticket": self.ticket,
            "clock": self.clock,
            "qc-kind": self.kind,
        }
        if self.kind in ("item", "end"):
            headers["qc-index"] = self.index
        if self.error:
            headers["qc-error"] = self.error
        if self.peers is not None:
            headers["qc-peers"] = list(self.peers)
        return headers


class _Where(msgspec.Struct):
    """The address for answers as a command has it."""

    exchange: str
    routing_key: str

    def address(self) -> ReplyAddress:
        if len(self.routing_key.encode(errors="replace")) > MAX_WORD:
            raise Malformed(f"its reply_to has a too long routing key: {self.routing_key!r:.40}")
        if _CONTROL.search(self.routing_key):
            raise Malformed(f"its reply_to holds control characters: {self.routing_key!r:.40}")
        return ReplyAddress(self.exchange, self.routing_key)


class _CommandBody(msgspec.Struct):
    """The body of a command as it may come: more lenient than what we write."""

    method: str
    arguments: dict[str, Any] | None = None
    destination: tuple[str, ...] | str | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str | None = None
    reply_to: _Where | None = None


def node_queue(namespace: str, node: str) -> str:
    """Return the name of a node's queue, as celery and kombu have it."""
    return f"{node}.{namespace}.pidbox"


def reply_exchange(namespace: str) -> str:
    """Return the name of the exchange for replies, as celery and kombu have it."""
    return f"reply.{namespace}.pidbox"


def reply_queue(namespace: str, caller: str) -> str:
    """Return the name of a caller's queue, as celery and kombu have it."""
    return f"{caller}.{reply_exchange(namespace)}"


def read_command(message: Message) -> Command:
    """Return the command in a message.

    Raises:
        Malformed: it is none; the text says why.
    """
    return parse_command(*_open(message))


def parse_command(body: Mapping[str, Any], headers: Mapping[str, Any]) -> Command:
    """Return the command that body and headers say.

    Raises:
        Malformed: they say none; the text says why.
    """
    try:
        said = msgspec.convert(body, _CommandBody)
    except msgspec.ValidationError as error:
        raise Malformed(f"its body is wrong: {error}") from error
    if not said.method:
        raise Malformed("it names no method")
    return Command(
        _word("method", said.method),
        said.arguments or {},
        _word("ticket", said.ticket or ""),
        _read_address(said, headers),
        None if said.reply_to is None else said.reply_to.address(),
        ttl=_seconds(headers, "qc-ttl"),
        expires=_seconds(headers, "expires") or None,
        clock=headers.get("clock"),
        peers=headers.get("qc-peers") is True,
        key=_word("key", headers.get("qc-key", "")),
        signed_at=_seconds(headers, "qc-signed-at") or 0.0,
        signature=_word("signature", headers.get("qc-signature", "")),
    )


def read_reply(message: Message) -> Reply:
    """Return the reply in a message.

    Raises:
        Malformed: it is none; the text says why.
    """
    body, headers = _open(message)
    if len(body) != 1:
        raise Malformed("it does not name one node")
    [(node, value)] = body.items()
    ticket = headers.get("ticket")
    if not isinstance(ticket, str):
        raise Malformed("it has no ticket")
    kind, error = headers.get("qc-kind"), headers.get("qc-error", "")
    failed = isinstance(value, dict) and set(value) == {"error"}
    if kind is None:  # of a node of kombu or celery
        kind = "error" if failed else "value"
    if kind not in KINDS or not isinstance(error, str):
        raise Malformed(f"its kind is {kind!r}")
    index, peers = headers.get("qc-index", 0), headers.get("qc-peers")
    if failed and kind not in ("value", "item"):
        value = value["error"]
    return Reply(
        node,
        ticket,
        kind,
        value,
        error,
        index if isinstance(index, int) and index >= 0 else 0,
        headers.get("clock"),
        tuple(name for name in peers if isinstance(name, str)) if isinstance(peers, list) else None,
    )


def _open(message: Message) -> tuple[dict[str, Any], Mapping[str, Any]]:
    try:
        headers = message.headers
        body = message.payload
    except MessageError as error:
        raise Malformed(str(error)) from error
    if not isinstance(body, dict):
        raise Malformed("its body is no object")
    return body, headers


def _word(what: str, value: object) -> str:
    """Return a word that can be logged and sent on without harm."""
    if not isinstance(value, str):
        raise Malformed(f"its {what} is no string")
    if len(value) > MAX_WORD or not value.isprintable():
        raise Malformed(f"its {what} is too long or not printable: {value[:40]!r}")
    return value


def _read_address(said: _CommandBody, headers: Mapping[str, Any]) -> Address:
    names, labels = said.destination, headers.get("qc-labels") or {}
    if not isinstance(labels, dict):
        raise Malformed("its labels are no object")
    if said.pattern is not None:
        if said.matcher not in MATCHERS:
            raise Malformed("its pattern needs a matcher: glob or pcre")
        try:
            check(said.matcher, said.pattern)
        except BadPattern as error:
            raise Malformed(f"its pattern is no good: {error}") from error
    return Address(
        (names,) if isinstance(names, str) else names,
        said.pattern,
        said.matcher if said.pattern else None,
        labels,
    )


def _seconds(headers: Mapping[str, Any], field: str) -> float | None:
    value = headers.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)

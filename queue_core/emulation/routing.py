"""Which queues want a message: pure rules, no I/O.

`compile_matcher` turns an exchange's bindings into something that answers quickly; `route` walks
from an exchange through bindings to other exchanges and collects queues.

The rules are those of AMQP 0-9-1 as RabbitMQ reads them:

- direct: equal keys. fanout: every binding. The default exchange ``""``: the queue named by the
  key.
- topic: keys are words between dots; ``*`` is exactly one word, ``#`` any number, none too. The
  empty key has no word.
- headers: ``x-match`` ``all`` (default) or ``any``; arguments that begin with ``x-`` do not count,
  and None matches any value.
- Each queue gets one copy, however many ways lead to it; a cycle of exchanges is walked once.

`route` reports the version of every entry that it looked at, absent ones too, so that the store can
refuse the put if one of them changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from queue_core.emulation.entries import BindingEntry, ExchangeEntry, QueueEntry, q, x

__all__ = ["Known", "Matcher", "Route", "compile_matcher", "headers_match", "route", "topic_words"]


class Matcher(Protocol):
    """Finds the bindings of one exchange that want a message."""

    def match(self, key: str, headers: Mapping[str, Any]) -> Iterable[str]:
        """Return the entry names of the destinations; one may occur several times."""


class Known(msgspec.Struct):
    """What is known of one entry of the table: its version (0: absent) and its value.

    An entry of a deleted queue has a version and no value; ``deleted`` is the queue's uid then.
    """

    version: int
    exchange: ExchangeEntry | None = None
    queue: QueueEntry | None = None
    matcher: Matcher | None = None
    deleted: str = ""


class Route(msgspec.Struct, frozen=True):
    """Where a message goes.

    Attributes:
        queues: the names and definitions of the queues, each once, in the order found.
        versions: of every entry looked at.
        missing: the exchange that was asked for does not exist.
        by_headers: the result depends on the message's headers, not only on its key.
        unread: entries that have to be read before the answer is right; if there are any, the rest
            is meaningless.
    """

    queues: tuple[tuple[str, QueueEntry], ...] = ()
    versions: dict[str, int] = {}
    missing: bool = False
    by_headers: bool = False
    unread: frozenset[str] = frozenset()


def route(
    lookup: Callable[[str], Known | None], exchange: str, key: str, headers: Mapping[str, Any]
) -> Route:
    """Return where a message published to ``exchange`` with ``key`` goes.

    ``lookup`` returns what is known of an entry, or None if it was never read; see `Route.unread`.
    """
    queues: dict[str, QueueEntry] = {}
    versions: dict[str, int] = {}
    unread: set[str] = set()
    by_headers = missing = False
    start = q(key) if exchange == "" else x(exchange)
    todo = [start]
    for name in todo:  # grows while it is walked: breadth first
        if name in versions or name in unread:
            continue
        known = lookup(name)
        if known is None:
            unread.add(name)
            continue
        versions[name] = known.version
        if known.queue is not None:
            queues[name[2:]] = known.queue
        elif known.exchange is not None:
            by_headers = by_headers or known.exchange.type == "headers"
            if known.matcher is not None:
                todo.extend(known.matcher.match(key, headers))
        elif name == start:
            missing = exchange != ""
    return Route(tuple(queues.items()), versions, missing, by_headers, frozenset(unread))


def compile_matcher(entry: ExchangeEntry) -> Matcher:
    """Return the matcher for an exchange."""
    if entry.type == "fanout":
        return _Everything(entry.bindings)
    if entry.type == "direct":
        return _Direct(entry.bindings)
    if entry.type == "topic":
        return _Topic(entry.bindings)
    return _Headers(entry.bindings)


class _Everything:
    __slots__ = ("_targets",)

    def __init__(self, bindings: Sequence[BindingEntry]) -> None:
        self._targets = tuple(dict.fromkeys(binding.target for binding in bindings))

    def match(self, key: str, headers: Mapping[str, Any]) -> Iterable[str]:
        return self._targets


class _Direct:
    __slots__ = ("_targets",)

    def __init__(self, bindings: Sequence[BindingEntry]) -> None:
        self._targets: dict[str, list[str]] = {}
        for binding in bindings:
            self._targets.setdefault(binding.routing_key, []).append(binding.target)

    def match(self, key: str, headers: Mapping[str, Any]) -> Iterable[str]:
        return self._targets.get(key, ())


class _Node:
    """A state of the topic automaton: a word leads on; in a ``#`` node any word also stays."""

    __slots__ = ("any_word", "hash", "is_hash", "targets", "words")

    def __init__(self, *, is_hash: bool = False) -> None:
        self.words: dict[str, _Node] = {}
        self.any_word: _Node | None = None
        self.hash: _Node | None = None
        self.is_hash = is_hash
        self.targets: list[str] = []


class _Topic:
    """All patterns of one exchange in one automaton.

    The time to match grows with the words of the key, not with the number of bindings.
    Following sets of states, and never one path after another, keeps patterns with several ``#``
    from taking exponential time.
    """

    __slots__ = ("_root",)

    def __init__(self, bindings: Sequence[BindingEntry]) -> None:
        self._root = _Node()
        for binding in bindings:
            node = self._root
            for word in topic_words(binding.routing_key):
                node = self._follow(node, word)
            node.targets.append(binding.target)

    @staticmethod
    def _follow(node: _Node, word: str) -> _Node:
        if word == "*":
            node.any_word = node.any_word or _Node()
            return node.any_word
        if word == "#":
            if node.is_hash:
                return node  # "#.#" is "#"
            node.hash = node.hash or _Node(is_hash=True)
            return node.hash
        return node.words.setdefault(word, _Node())

    def match(self, key: str, headers: Mapping[str, Any]) -> Iterable[str]:
        states = _with_hashes([self._root])
        for word in topic_words(key):
            following: list[_Node] = []
            for state in states:
                if state.is_hash:
                    following.append(state)
                if state.any_word is not None:
                    following.append(state.any_word)
                if (child := state.words.get(word)) is not None:
                    following.append(child)
            if not following:
                return ()
            states = _with_hashes(following)
        return [target for state in states for target in state.targets]


def _with_hashes(nodes: list[_Node]) -> list[_Node]:
    """Add the ``#`` nodes that can be entered without a word, and drop repetitions."""
    found: dict[int, _Node] = {}
    for node in nodes:
        found[id(node)] = node
        if node.hash is not None:
            found[id(node.hash)] = node.hash
    return list(found.values())


def topic_words(key: str) -> list[str]:
    """Return the words of a key or pattern; the empty one has none."""
    return key.split(".") if key else []


class _Headers:
    __slots__ = ("_bindings",)

    def __init__(self, bindings: Sequence[BindingEntry]) -> None:
        self._bindings = [
            (
                binding.target,
                binding.arguments.get("x-match", "all") == "any",
                {
                    name: value
                    for name, value in binding.arguments.items()
                    if not name.startswith("x-")
                },
            )
            for binding in bindings
        ]

    def match(self, key: str, headers: Mapping[str, Any]) -> Iterable[str]:
        return [
            target
            for target, any_of, wanted in self._bindings
            if headers_match(wanted, headers, any_of=any_of)
        ]


def headers_match(wanted: Mapping[str, Any], headers: Mapping[str, Any], *, any_of: bool) -> bool:
    """Whether ``headers`` have all of ``wanted`` (or, with ``any_of``, at least one of them)."""
    hits = (
        name in headers and (value is None or _equal(value, headers[name]))
        for name, value in wanted.items()
    )
    return any(hits) if any_of else all(hits)


def _equal(one: Any, other: Any) -> bool:
    # In AMQP true and 1 are values of different types; in Python they are equal.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)

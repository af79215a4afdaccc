"""Between the values of the contract and what the scripts take and answer.

What goes to a script is a plan, one msgpack array. What many rows of it have in common is said
once, since a row of its own costs the server three microseconds: so tokens go in groups, messages
go in runs, and claims come in runs. Times are whole microseconds. What most puts consist of goes
without a plan, as the words of ``append``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from queue_core.message import Token
from queue_core.transport import Claim, Envelope, Limit

__all__ = ["Tokens", "micros", "plan_batch", "read_claims", "ttl_of", "words_to_append"]

_SIZE: Final = 4
_MOST_WORDS: Final = 1000
"""What a script may hand to one command at once."""
_FIRST: Final = 2
"""Where in ARGV contents begin: ARGV[1] is the plan."""

_Run = tuple[str, int, float | None, list[bytes], list[bytes], list[int]]
"""Messages that go to `append` as one: queue, priority, ttl, and ids, contents, places in batch."""


def micros(seconds: float) -> int:
    """Return whole microseconds, never fewer than asked for."""
    return max(0, math.ceil(seconds * 1_000_000))


def ttl_of(seconds: float | None) -> int:
    """Return a ttl as a plan has it; -1 is for ever."""
    return -1 if seconds is None else micros(seconds)


class Tokens:
    """Tokens, each once, in groups that have queue and tag in common: (queue, tag, ids).

    A token is (queue, id, tag). One that cannot be ours, and so is stale, is in ``odd``.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        """Put them into groups."""
        self.groups: list[tuple[str, str, list[str]]] = []
        self.odd: list[Token] = []
        groups: dict[tuple[str, str], list[str]] = {}
        for token in dict.fromkeys(tokens):
            if not _is_token(token):
                self.odd.append(token)
                continue
            queue, name, tag = token
            ids = groups.get((queue, tag))
            if ids is None:
                ids = groups[queue, tag] = []
                self.groups.append((queue, tag, ids))
            ids.append(name)
        self._places: dict[Token, int] | None = None

    def _all(self) -> list[Token]:
        return [(queue, name, tag) for queue, tag, ids in self.groups for name in ids]

    def place(self, token: Token) -> int:
        """Return the token's place in all groups, from 1, adding a group if need be; 0 if odd."""
        if self._places is None:
            self._places = {known: place for place, known in enumerate(self._all(), 1)}
        if token not in self._places:
            if not _is_token(token):
                return 0
            queue, name, tag = token
            self.groups.append((queue, tag, [name]))
            self._places[token] = len(self._places) + 1
        return self._places[token]

    def stale(self, places: Sequence[int]) -> list[Token]:
        """Return the tokens at these places, from 0, and the odd ones."""
        if not places:
            return self.odd
        known = self._all()
        return [known[place] for place in places] + self.odd


def _is_token(token: Token) -> bool:
    return isinstance(token, tuple) and tuple(map(type, token)) == (str, str, str)


def plan_batch(
    batch: Sequence[Envelope], limits: Mapping[str, Limit], tokens: Tokens
) -> tuple[list[tuple[object, ...]], list[bytes], dict[int, int]]:
    """Return the queues of a put's plan, the contents, and place in ARGV -> index in the batch."""
    by_queue: dict[str, list[tuple[int, int]]] = {}
    for index, envelope in enumerate(batch):
        cause = 0
        if envelope.cause is None or (cause := tokens.place(envelope.cause)):
            by_queue.setdefault(envelope.queue, []).append((index, cause))
    queues: list[tuple[object, ...]] = []
    contents: list[bytes] = []
    places: dict[int, int] = {}
    for queue, members in by_queue.items():
        runs: list[tuple[object, ...]] = []
        ids: list[str] = []
        last: tuple[int, ...] = ()
        for index, cause in members:
            envelope = batch[index]
            delay, ttl, place = envelope.delay, envelope.ttl, len(contents) + _FIRST
            kind = (
                envelope.priority,
                micros(delay) if delay else 0,
                -1 if ttl is None else micros(ttl),
                envelope.max_deliveries,
                cause,
            )
            if kind != last:
                ids = []
                runs.append((*kind, place, ids))
                last = kind
            ids.append(envelope.id)
            places[place] = index
            contents.append(_pack(envelope))
        queues.append((queue, *_limit(limits.get(queue)), runs))
    queues += [
        (queue, limit.max_length, 0, ())
        for queue, limit in limits.items()
        if queue not in by_queue and limit.overflow == "drop-head"
    ]
    return queues, contents, places


def words_to_append(
    batch: Sequence[Envelope], versions: Mapping[str, int], tokens: Tokens
) -> tuple[list[bytes], list[int]] | None:
    """Return what ``append`` takes, and the index in the batch of each message in it, in order.

    None if not all messages are plain: ready at once, and for however many deliveries; or if there
    is too much of it.
    """
    runs: list[_Run] = []
    last: dict[tuple[str, int], _Run] = {}
    for index, envelope in enumerate(batch):
        if (
            envelope.delay
            or envelope.ttl == 0
            or envelope.max_deliveries
            or envelope.cause is not None
        ):
            return None
        queue, priority, ttl = envelope.queue, envelope.priority, envelope.ttl
        run = last.get((queue, priority))
        if run is None or run[2] != ttl:  # a later run, for they keep their order
            run = last[queue, priority] = (queue, priority, ttl, [], [], [])
            runs.append(run)
        _, _, _, ids, contents, places = run
        ids.append(envelope.id.encode())
        contents.append(_pack(envelope))
        places.append(index)
    words = [b"%d" % len(versions)]
    for name in versions:
        words.append(name.encode())
    for version in versions.values():
        words.append(b"%d" % version)
    words.append(b"%d" % len(tokens.groups))
    for queue, tag, names in tokens.groups:
        words += (queue.encode(), tag.encode(), b"%d" % len(names), *map(str.encode, names))
    order: list[int] = []
    for queue, priority, ttl, ids, contents, places in runs:
        lifetime = b"-1" if ttl is None else b"%d" % micros(ttl)
        words += (queue.encode(), b"%d" % priority, lifetime, b"%d" % len(ids), *ids, *contents)
        order += places
    return (words, order) if len(words) <= _MOST_WORDS else None


def _limit(limit: Limit | None) -> tuple[int, int]:
    if limit is None:
        return -1, 0
    return limit.max_length, int(limit.overflow == "reject-publish")


def _pack(envelope: Envelope) -> bytes:
    """Return a message's content: the length of its properties in 4 bytes, properties, body."""
    properties = envelope.properties
    return b"".join((len(properties).to_bytes(_SIZE, "big"), properties, envelope.body))


def read_claims(runs: Any, answer: Sequence[bytes]) -> list[Claim]:
    """Return the claims of an answer, whose head had these runs."""
    claims: list[Claim] = []
    position = 1
    for queue, tag, priority, attempts, count, reason in runs or ():
        for _ in range(count):
            name, content = answer[position].decode(), answer[position + 1]
            position += 2
            start = _SIZE + int.from_bytes(content[:_SIZE], "big")
            claims.append(
                Claim(
                    (queue, name, tag),
                    queue,
                    name,
                    content[start:],
                    content[_SIZE:start],
                    attempts,
                    priority,
                    reason,
                )
            )
    return claims

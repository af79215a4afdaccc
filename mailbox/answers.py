"""What came back from a command: a mapping of node to value, and the reasons for what is not in it.

Every node that was asked ends in exactly one place: in the mapping, or in ``errors``, ``refused``,
``expired``, ``missing`` or ``unknown``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from queue_core import RemoteError
from queue_core.mailbox.replies import Ticket
from queue_core.mailbox.wire import Reply


class Answers(Mapping[str, Any]):
    """Node -> what it answered. A node that yielded has the list of what it yielded.

    Attributes:
        errors: node -> `RemoteError`, for nodes that tried and failed, or could not.
        refused: node -> why it was not allowed to do it.
        expired: nodes that got the command too late and did not do it.
        missing: nodes that were asked and did not answer in time; a stream of theirs that had no
            end is in ``partial``.
        unknown: names that were asked for and that no node has.
        partial: node -> what it had yielded by the deadline.
        heard: the nodes that have said all that they have to say.
        duplicates: how many replies came twice, or out of turn.
    """

    def __init__(self) -> None:
        """Nothing came yet."""
        self._values: dict[str, Any] = {}
        self.partial: dict[str, list[Any]] = {}
        self.errors: dict[str, RemoteError] = {}
        self.refused: dict[str, str] = {}
        self.expired: set[str] = set()
        self.missing: set[str] = set()
        self.unknown: set[str] = set()
        self.heard: set[str] = set()
        self.duplicates = 0
        self._ticket: Ticket[Reply] | None = None

    def count_late(self, ticket: Ticket[Reply]) -> None:
        """What comes for this ticket after the end is counted in ``late``."""
        self._ticket = ticket

    @property
    def late(self) -> int:
        """How many replies came after the end, as far as anybody looked."""
        return 0 if self._ticket is None else self._ticket.late

    def __getitem__(self, node: str) -> Any:
        """Return what a node answered.

        Raises:
            RemoteError: it failed there, or was refused.
            KeyError: it did not answer; the text says what is known.
        """
        if node in self._values:
            return self._values[node]
        if node in self.errors:
            raise self.errors[node]
        if node in self.refused:
            raise RemoteError("Refused", self.refused[node])
        if node in self.unknown:
            raise KeyError(f"there is no node {node!r}")
        if node in self.expired:
            raise KeyError(f"{node!r} got the command too late and did not do it")
        raise KeyError(f"{node!r} did not answer in time")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the nodes that answered, in the order of their answers."""
        return iter(self._values)

    def __len__(self) -> int:
        """How many nodes answered."""
        return len(self._values)

    def __contains__(self, node: object) -> bool:
        """Whether a node answered."""
        return node in self._values

    @property
    def complete(self) -> bool:
        """Every node that was asked answered, and none with an error."""
        return not (self.errors or self.refused or self.expired or self.missing or self.unknown)

    def take(self, reply: Reply) -> Iterable[tuple[str, Any]]:
        """Note a reply; return what a caller sees of it at once: one pair, or nothing."""
        node = reply.node
        if node in self.heard:
            self.duplicates += 1
            return ()
        if reply.kind == "item":
            items = self.partial.setdefault(node, [])
            if reply.index == len(items):
                items.append(reply.value)
                return ((node, reply.value),)
            self.duplicates += 1
            return ()
        self.heard.add(node)
        if reply.kind == "value":
            self._values[node] = reply.value
            return ((node, reply.value),)
        if reply.kind == "end":
            self._values[node] = self.partial.pop(node, [])
        elif reply.kind == "expired":
            self.expired.add(node)
        elif reply.kind == "refused":
            self.refused[node] = str(reply.value)
        else:
            self.errors[node] = RemoteError(reply.error or "Exception", str(reply.value))
        return ()

    def __repr__(self) -> str:
        """Show the values and how many of the rest there are."""
        rest = ", ".join(
            f"{len(group)} {name}"
            for name in ("errors", "refused", "expired", "missing", "unknown")
            if (group := getattr(self, name))
        )
        return f"<Answers {self._values!r}{'; ' + rest if rest else ''}>"

"""What every node can do, whoever made it: ``ping``, ``clock``, ``commands``, the talk of nodes.

Commands that begin with ``qc.`` are for machines. A caller says ``qc.left`` when it does not listen
any more to what a handler yields. The others are of nodes among themselves. Who comes says
``qc.hello`` where no store keeps the names. Each of the others answers ``qc.here``; the newcomer
asks the first few of them, ``qc.tell``, and they answer ``qc.told`` with all that they know, the
journal too, which may be long. ``qc.bye`` takes leave of nodes that went, and ``qc.leave`` asks the
older of two nodes with one name to make room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from queue_core.mailbox.directory import Labels, PeerDirectory
from queue_core.mailbox.journal import Entry
from queue_core.mailbox.panel import Meta, Panel
from queue_core.mailbox.wiring import Wiring

logger = logging.getLogger(__name__)


class Profile(msgspec.Struct, frozen=True):
    """Who a node is.

    Attributes:
        name: unique in the namespace.
        state: what its handlers get as their first argument.
        labels: what it can be addressed by.
        panel: its commands.
        life: tells it from others of the same name.
    """

    name: str
    state: Any
    labels: Labels
    panel: Panel
    life: str


def builtin_commands(
    node: Profile,
    wiring: Wiring,
    believes: Callable[[Entry], bool],
    learn: Callable[[], None],
    caller_left: Callable[[str], None],
) -> Panel:
    """Return the commands that a node has by itself.

    Args:
        node, wiring: whose.
        believes: which entries another node may add to the journal.
        learn: does what the journal says.
        caller_left: ends what a handler yields for a ticket.
    """
    panel = Panel()

    def ping(state: object) -> dict[str, str]:
        """Answer, to show that the node lives."""
        return {"ok": "pong"}

    def clock(state: object) -> dict[str, int]:
        """The node's logical time."""
        return {"clock": wiring.clock.value}

    def commands(state: object) -> list[dict[str, Any]]:
        """The commands of this node, and how they are called."""
        return [_described(entry.meta) for entry in (*node.panel, *panel) if entry.meta.visible]

    def who(state: object) -> Mapping[str, str]:
        return node.labels

    def leave(state: object, life: str) -> None:
        if life != node.life:
            logger.warning("node %s leaves: a newer one took its name", node.name)
            raise SystemExit("left")

    def left(state: object, ticket: str) -> None:
        caller_left(ticket)

    for handler in (ping, clock, commands):
        panel.register(handler, concurrency=0)
    panel.register(who, name="qc.who", visible=False, concurrency=0)
    panel.register(left, name="qc.left", visible=False, concurrency=0)
    panel.register(leave, name="qc.leave", kind="admin", visible=False)
    if isinstance(wiring.directory, PeerDirectory):
        _add_talk(panel, node, wiring, wiring.directory, believes, learn)
    return panel


def _add_talk(
    panel: Panel,
    node: Profile,
    wiring: Wiring,
    directory: PeerDirectory,
    believes: Callable[[Entry], bool],
    learn: Callable[[], None],
) -> None:
    """Add what nodes tell one another where no store keeps their names."""

    def hello(state: object, name: str, labels: dict[str, str], again: bool = False) -> None:
        if name == node.name:
            return
        directory.note(name, labels)
        if not again:
            wiring.cast(name, "qc.here", {"name": node.name, "labels": dict(node.labels)})

    def here(state: object, name: str, labels: dict[str, str]) -> None:
        if name == node.name:
            return
        directory.note(name, labels)
        if directory.asks():
            wiring.cast(name, "qc.tell", {"name": node.name})

    def tell(state: object, name: str) -> None:
        wiring.cast(name, "qc.told", {"told": directory.tell()})

    def told(state: object, told: dict[str, Any]) -> None:
        directory.learn(told, believes)
        learn()

    def bye(state: object, names: list[str]) -> None:
        directory.drop(name for name in names if name != node.name)

    panel.register(hello, name="qc.hello", visible=False, concurrency=4)
    panel.register(here, name="qc.here", visible=False)
    panel.register(tell, name="qc.tell", visible=False)
    panel.register(told, name="qc.told", visible=False)
    panel.register(bye, name="qc.bye", visible=False, concurrency=0)  # before the next hello


def _described(meta: Meta) -> dict[str, Any]:
    return {
        "name": meta.name,
        "alias": meta.alias,
        "kind": meta.kind,
        "signature": meta.signature,
        "help": meta.help,
        "arguments": [argument.name for argument in meta.arguments],
        "variadic": meta.variadic,
        "default_timeout": meta.default_timeout,
    }

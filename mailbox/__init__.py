"""Remote control between named nodes, on any transport.

The names are loaded when they are used: a process that runs tasks needs one or two of them.

Where things stand, along the way of a command:

- Asked: ``mailbox``, ``arguments``; ``asking`` is one command, which ``sending`` sends; ``replies``
  hears the answers, ``answers`` is what comes back.
- On the wire: ``wire``, ``schema``, ``signing``, ``matching`` (addresses), ``clock``.
- Taken: ``node`` with its ``inbox``, ``serving`` and ``pace``; ``reception`` judges each command,
  ``panel`` and ``builtin`` are the handlers, ``runner`` runs them.
- Answered: ``answering``, ``streaming``, ``outbox``.
- Known: ``directory`` (who is there), ``journal`` (what a node that comes later must learn).

What a mailbox and its nodes share is ``wiring``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queue_core.mailbox.answers import Answers
    from queue_core.mailbox.clock import LamportClock, Stamp
    from queue_core.mailbox.mailbox import Mailbox
    from queue_core.mailbox.node import NameTaken, Node
    from queue_core.mailbox.panel import BadArguments, Meta, Panel
    from queue_core.mailbox.replies import Replies, Ticket
    from queue_core.mailbox.signing import SigningKey

__all__ = [
    "Answers",
    "BadArguments",
    "LamportClock",
    "Mailbox",
    "Meta",
    "NameTaken",
    "Node",
    "Panel",
    "Replies",
    "SigningKey",
    "Stamp",
    "Ticket",
]

_MODULES = {
    "Answers": "answers",
    "BadArguments": "panel",
    "LamportClock": "clock",
    "Mailbox": "mailbox",
    "Meta": "panel",
    "NameTaken": "node",
    "Node": "node",
    "Panel": "panel",
    "Replies": "replies",
    "SigningKey": "signing",
    "Stamp": "clock",
    "Ticket": "replies",
}


def __getattr__(name: str) -> Any:
    """Load one of ``__all__`` at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

"""Remote control between named nodes, on any transport."""

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

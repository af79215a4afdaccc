"""RabbitMQ's direct reply: which routing keys are none of its addresses, and do harm.

A client that consumes from `PSEUDO_QUEUE` is answered on the default exchange, at that name and two
more parts: its process on the broker, an Erlang pid in base64, and a key. RabbitMQ decodes the
first without care, and if it is damaged ends the connection (541) with everybody's publications
[ran: 3.10]. Such an address comes as the ``reply_to`` of a message, from whoever sent that. So one
that cannot be right is taken for what it is: the name of a queue that does not exist.

Pure. What a pid may hold is left to the broker, since that differs between its versions.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Final

PSEUDO_QUEUE: Final = "amq.rabbitmq.reply-to"
PREFIX: Final = f"{PSEUDO_QUEUE}."

# The external term format of Erlang.
_VERSION: Final = 131
_NUMBERS: Final[Mapping[int, int]] = {103: 9, 88: 12}
"""Bytes of a pid's numbers, by the tag of the pid."""
_LENGTHS: Final[Mapping[int, int]] = {100: 2, 118: 2, 115: 1, 119: 1}
"""Bytes of the length of a node's name, by the tag of the atom that it is."""


def harmful(key: str) -> bool:
    """Whether RabbitMQ takes this routing key for an address that it cannot decode."""
    if not key.startswith(PREFIX):
        return False
    parts = [part for part in key.removeprefix(PREFIX).split(".") if part]
    return len(parts) == 2 and not _is_process(parts[0])


def _is_process(text: str) -> bool:
    try:
        data = b64decode(text, validate=True)
        version, kind, atom = data[:3]
        begin = 3 + _LENGTHS[atom]
        end = begin + int.from_bytes(data[3:begin])
        return (
            version == _VERSION
            and bool(data[begin:end].decode())
            and len(data) == end + _NUMBERS[kind]
        )
    except (ValueError, KeyError):
        return False

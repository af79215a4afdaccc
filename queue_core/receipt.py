"""What a publish gives back: the proof that the broker has the message."""

from __future__ import annotations

from typing import Literal

from queue_core.message import Publication

Status = Literal["confirmed", "pending", "discarded"]


class Receipt:
    """The fate of one published message.

    Attributes:
        id: the message's id at the broker.
        exchange, routing_key: where it was published to.
        status: ``confirmed``: the broker has it; ``pending``: it waits for the
            commit of the caller's transaction, which turns this into ``confirmed`` or
            ``discarded``.
    """

    __slots__ = ("exchange", "id", "routing_key", "status")

    def __init__(self, publication: Publication, status: Status) -> None:
        """Describe ``publication``."""
        self.id = publication.id
        self.exchange = publication.exchange
        self.routing_key = publication.routing_key
        self.status: Status = status

    def __repr__(self) -> str:
        """Name the target and the fate."""
        return (
            f"<Receipt {self.status} exchange={self.exchange!r} "
            f"routing_key={self.routing_key!r} id={self.id}>"
        )

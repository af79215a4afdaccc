"""What a publish gives back: the proof that the broker has the message, or why it has not."""

from __future__ import annotations

from typing import Literal

from queue_core.errors import NotConfirmed, PublishError, Refused, Unroutable
from queue_core.message import Publication
from queue_core.transport import Outcome

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


def failure_of(
    publication: Publication, outcome: Outcome, receipts: tuple[object, ...] = ()
) -> PublishError:
    """Return the error for an outcome other than ``confirmed``."""
    what = described(publication)
    detail = f": {outcome.detail}" if outcome.detail else ""
    if outcome.status == "unroutable":
        why = detail or ": no queue is bound for it"
        advice = "declare and bind the queue first, or pass mandatory=False"
        return Unroutable(f"{what} is unroutable{why}; {advice}", receipts, publication)
    if outcome.status == "refused":
        return Refused(f"{what} was refused{detail}", receipts, publication)
    return NotConfirmed(f"{what} was not confirmed{detail}", receipts, publication)


def described(publication: Publication) -> str:
    """Return where a message was to go, for an error's text."""
    target = (
        f"exchange {publication.exchange!r}" if publication.exchange else "the default exchange"
    )
    return f"the message to {target} with routing key {publication.routing_key!r}"

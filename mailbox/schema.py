"""The shapes of commands and answers as JSON Schema, to check messages without queue_core.

``docs/mailbox-wire.rst`` says what the fields mean; `json_schema` is kept beside it, in
``docs/mailbox-wire.schema.json``. Nodes themselves read more leniently (`queue_core.mailbox.wire`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from queue_core.mailbox.wire import MAX_WORD, ReplyKind

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_WORD)]
_Word = Annotated[str, msgspec.Meta(max_length=MAX_WORD)]
_Time = Annotated[int, msgspec.Meta(ge=0)]


class Where(msgspec.Struct, forbid_unknown_fields=True):
    """Where the caller waits: the default exchange and its queue, or the exchange for replies."""

    exchange: str
    routing_key: _Name


class CommandBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a command."""

    method: _Name
    arguments: dict[str, Any] | None = None
    destination: list[str] | None = None
    pattern: _Word | None = None
    matcher: Literal["glob", "pcre"] | None = None
    ticket: _Word = ""
    reply_to: Where | None = None


class CommandHeaders(msgspec.Struct):
    """The headers of a command; others may be there."""

    clock: _Time | None = None
    expires: float = 0
    ttl: float | None = msgspec.field(default=None, name="qc-ttl")
    labels: dict[str, str] = msgspec.field(default_factory=dict, name="qc-labels")
    peers: bool = msgspec.field(default=False, name="qc-peers")
    key: _Word = msgspec.field(default="", name="qc-key")
    signed_at: float = msgspec.field(default=0.0, name="qc-signed-at")
    signature: _Word = msgspec.field(default="", name="qc-signature")


AnswerBody = Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=1)]
"""The name of the node, and what it answers."""


class AnswerHeaders(msgspec.Struct):
    """The headers of an answer; others may be there."""

    ticket: _Word
    clock: _Time
    kind: ReplyKind = msgspec.field(default="value", name="qc-kind")
    index: _Time = msgspec.field(default=0, name="qc-index")
    error: str = msgspec.field(default="", name="qc-error")
    peers: list[str] = msgspec.field(default_factory=list, name="qc-peers")


def json_schema() -> dict[str, Any]:
    """Return one document that describes the body and headers of commands and answers."""
    types = [CommandBody, CommandHeaders, AnswerBody, AnswerHeaders]
    shapes, defs = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    names = ("command_body", "command_headers", "answer_body", "answer_headers")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Remote control: a message has a body and headers",
        "properties": dict(zip(names, shapes, strict=True)),
        "$defs": defs,
    }

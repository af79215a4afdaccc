"""The JSON Schema of commands and answers is the one in the documents, and means what it says."""

import json
from pathlib import Path

import msgspec
import pytest

from queue_core.mailbox.schema import CommandBody, CommandHeaders, json_schema
from queue_core.mailbox.signing import SigningKey
from queue_core.mailbox.wire import Address, Command, ReplyAddress
from queue_core.testing.clocks import FakeClock

FILE = Path(__file__).parents[3] / "docs" / "mailbox-wire.schema.json"


def test_the_document_is_what_is_generated():
    assert json.loads(FILE.read_text(encoding="utf-8")) == json_schema()


def test_a_command_with_everything_fits():
    address = Address(("a",), "a*", "glob", {"role": "web"})
    command = Command(
        "revoke", {"id": 1}, "t", address, ReplyAddress("", "q"), ttl=1.5, expires=9.0, clock=3
    )
    signed = SigningKey("ops", "a secret of operators").sign(command, FakeClock())
    for shape, fields in ((CommandBody, signed.body()), (CommandHeaders, signed.headers())):
        read = msgspec.convert(json.loads(json.dumps(fields)), shape)
        assert msgspec.to_builtins(read).items() >= fields.items()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"method": ""},
        {"method": 5},
        {"method": "x", "ticket": "1" * 256},
        {"method": "x", "matcher": "sql"},
        {"method": "x", "reply_to": {"exchange": ""}},
        {"method": "x", "more": 1},
    ],
    ids=str,
)
def test_what_is_no_command_does_not_fit(body):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, CommandBody)

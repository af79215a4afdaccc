"""Which routing keys RabbitMQ would take for addresses of direct replies, and cannot decode."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.transports.amqp.direct_reply import PREFIX, PSEUDO_QUEUE, harmful

PROCESS = "g1h2AA5yZXBseUA1MTY5NjcwOAAAHbwAAAAFawOybg=="
KEY = "vlB2FzJjQfqiVcPiWbTnjg=="
RAW = b64decode(PROCESS)


@pytest.mark.parametrize(
    "key",
    [
        "queue",
        "",
        PSEUDO_QUEUE,
        PREFIX,
        f"{PREFIX}a",
        f"{PREFIX}a.b.c",
        f"{PREFIX}{PROCESS}.{KEY}",
        f"{PREFIX}{PROCESS}..{KEY}",
        f"x.{PREFIX}a.b",
    ],
)
def test_an_address_and_what_is_taken_for_none_do_no_harm(key: str) -> None:
    assert not harmful(key)


@pytest.mark.parametrize("kind", [(103, 9), (88, 12)])
@pytest.mark.parametrize("atom", [(100, 2), (118, 2), (115, 1), (119, 1)])
def test_a_process_may_be_written_in_every_way_that_erlang_has(
    kind: tuple[int, int], atom: tuple[int, int]
) -> None:
    name = b"rabbit@host"
    raw = bytes((131, kind[0], atom[0])) + len(name).to_bytes(atom[1]) + name + bytes(kind[1])
    assert not harmful(f"{PREFIX}{b64encode(raw).decode()}.{KEY}")


@pytest.mark.parametrize(
    "process",
    [
        "a",
        "abcd",
        "!!!!",
        "é",
        PROCESS.rstrip("="),
        b64encode(RAW[:-1]).decode(),
        b64encode(RAW + b"x").decode(),
        b64encode(b"\x83d\x00\x01a").decode(),
        b64encode(b"\x83a\x01").decode(),
        b64encode(b"\x83Xv\xff\xff").decode(),
        b64encode(RAW.replace(b"reply", b"\xff\xff\xff\xff\xff")).decode(),
    ],
)
def test_a_damaged_address_does_harm(process: str) -> None:
    assert harmful(f"{PREFIX}{process}.{KEY}")


@given(st.text(max_size=60))
def test_whatever_stands_there_is_judged(text: str) -> None:
    harmful(PREFIX + text)
    harmful(f"{PREFIX}{b64encode(text.encode('utf-8', 'surrogatepass')).decode()}.{KEY}")

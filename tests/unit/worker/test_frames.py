"""Messages over a stream."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.worker.outcome import Done, Failed, Job, Rejected
from queue_core.worker.pools.frames import Ended, FromChild, Leaving, Reader, ToChild, pack


def job(ticket, body=b"[]"):
    return Job(ticket, "t", "q", 1, False, b"raw", "module:reader", body)


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 64))
def test_messages_arrive_whole_however_the_stream_is_cut(bodies, size):
    sent = [job(number, body) for number, body in enumerate(bodies)]
    stream = b"".join(map(pack, sent))
    reader = Reader(ToChild)
    got = []
    for at in range(0, len(stream), size):
        got += reader.feed(stream[at : at + size])
    assert got == sent
    assert reader.waiting == 0


def test_outcomes_make_the_round_trip():
    sent = [
        Ended(1, Done(b"r", 0.5)),
        Ended(2, Failed(b"r", "ValueError: x", 0.1, "trace")),
        Ended(3, Rejected("why")),
        Leaving(),
    ]
    assert list(Reader(FromChild).feed(b"".join(map(pack, sent)))) == sent


def test_nonsense_is_noticed():
    with pytest.raises(msgspec.DecodeError):
        list(Reader(ToChild).feed(b"\x03\x00\x00\x00abc"))

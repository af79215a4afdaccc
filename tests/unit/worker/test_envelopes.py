"""Values that JSON has no form for, on their way through messages."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import decode
from queue_core.worker import App
from queue_core.worker.envelopes import opened
from queue_core.worker.messages import read_message
from queue_core.worker.protocol import Call
from queue_core.worker.results.wire import encode_success, read_result, state
from queue_core.worker.signature import plain

ZONE = timezone(timedelta(hours=2))
WIRE = [
    (datetime(2026, 11, 22, 1, 2, 3, 4, ZONE), "datetime", "2026-11-22T01:02:03.000004+02:00"),
    (datetime(2026, 11, 22), "datetime", "2026-11-22T00:00:00"),
    (date(2026, 11, 22), "date", "2026-11-22"),
    (time(1, 2), "time", "01:02:00"),
    (Decimal("1.50"), "decimal", "1.50"),
    (UUID(int=7), "uuid", {"hex": "0" * 31 + "7"}),
    ("ä".encode(), "bytes", "ä"),
    (b"\xff", "base64", "/w=="),
]

numbers = st.integers() | st.decimals(allow_nan=False)
moments = st.dates() | st.datetimes() | st.times()
texts = st.text(max_size=3) | st.binary(max_size=3) | st.uuids()
values = st.recursive(
    st.none() | numbers | moments | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(("value", "name", "written"), WIRE)
def test_each_is_written_as_celery_writes_it(value, name, written):
    assert plain([value]) == [{"__type__": name, "__value__": written}]
    assert opened([{"__type__": name, "__value__": written}]) == [value]


@given(values)
def test_what_is_written_is_read_again(value):
    assert opened(json.loads(json.dumps(plain(value)))) == value


@pytest.mark.parametrize(
    "value",
    [
        {"__type__": "date", "__value__": "tomorrow"},
        {"__type__": "decimal", "__value__": []},
        {"__type__": "uuid", "__value__": {}},
        {"__type__": "bytes", "__value__": 7},
        {"__type__": "base64", "__value__": "/"},
        {"__type__": "os.system", "__value__": "ls"},
        {"__type__": ["date"], "__value__": "2026-11-22"},
        {"__type__": "date", "__value__": "2026-11-22", "more": 1},
    ],
)
def test_what_is_no_envelope_is_left_as_it_is(value):
    assert opened([dict(value)]) == [value]


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_arguments_arrive_as_what_they_were(serializer, compression):
    app = App("x")
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    first = app.signature("t", (moment, [b"\xff"]), {"on": date(2026, 11, 22), "by": b"x"})
    first.link(app.signature("u", expires=moment))
    options = {"task_id": "id", "serializer": serializer, "compression": compression}
    sent = app.composer.compose(first.set(**options)).publication
    call = read_message(sent.properties, sent.body, ["json", "msgpack", "pickle"])
    assert call.args == [moment, [b"\xff"]]
    assert call.kwargs == {"on": date(2026, 11, 22), "by": b"x"}
    assert call.embed.callbacks[0]["options"]["expires"] == moment


def test_who_has_a_form_of_its_own_uses_that():
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    call = App("x").signature("t", (moment, b"\xff"), task_id="id")
    compose = App("x").composer.compose
    packed = compose(call.set(serializer="msgpack")).publication.body
    assert b"\xff" in packed and b"base64" not in packed and b"datetime" in packed
    pickled = compose(call.set(serializer="pickle")).publication.body
    found = decode(pickled, "application/x-python-serialize", "binary", accept=["pickle"])
    assert found[0] == [moment, b"\xff"]


def test_results_and_states_arrive_as_what_they_were():
    call = Call("t", "id", [date(2026, 11, 22)], {})
    result = read_result(json.loads(encode_success(call, {"at": Decimal("0.1")})))
    assert result.value == {"at": Decimal("0.1")} and result.args == [date(2026, 11, 22)]
    assert read_result(json.loads(state("id", "PROGRESS", {"at": time(1)}))).value == {
        "at": time(1)
    }


def test_what_goes_round_in_circles_is_refused_as_before():
    circle = []
    circle.append(circle)
    with pytest.raises(Exception, match="(?i)nest|recurs|deep"):
        encode_success(Call("t", "id", [], {}), circle)

"""Codecs, accept lists, compression: round trips, and what hostile bytes may not do."""

from __future__ import annotations

import gzip
import pickle
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queue_core.errors import ConfigError, ContentDisallowed, DecodeError, MessageError, TooLarge
from queue_core.limits import (
    Limits,
    has_not_finite,
    json_deeper_than,
    msgpack_deeper_than,
    payload_deeper_than,
)
from queue_core.serialization import DEFAULT_CODECS, Codec, Codecs, Encoded, decode, encode

ALL = ["json", "msgpack", "raw", "text"]
TYPES = [
    "application/json",
    "application/x-msgpack",
    "application/msgpack",
    "application/data",
    "text/plain",
]

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
)
finite = scalars.filter(lambda value: value not in (float("inf"), float("-inf")))
documents = st.recursive(
    finite, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=40
)


def back(encoded: Encoded, **options: Any) -> Any:
    return decode(
        encoded.body, encoded.content_type, encoded.content_encoding, encoded.compression, **options
    )


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@given(payload=documents, serializer=st.sampled_from([None, "json", "msgpack", "pickle"]))
def test_documents_survive_the_round_trip(payload: Any, serializer: str | None) -> None:
    assert back(encode(payload, serializer), accept=[*ALL, "pickle"]) == payload


@given(payload=documents)
def test_documents_survive_compression(payload: Any) -> None:
    encoded = encode(payload, compression="zlib")
    assert encoded.compression == "application/x-gzip"
    assert zlib.decompress(encoded.body) == encode(payload).body
    assert back(encoded) == payload


@given(payload=st.binary())
def test_bytes_without_a_serializer_travel_raw(payload: bytes) -> None:
    encoded = encode(payload)
    assert (encoded.body, encoded.content_type) == (payload, "application/data")
    assert back(encoded) == payload
    assert back(encode(bytearray(payload))) == back(encode(memoryview(payload))) == payload


@given(payload=texts)
def test_a_str_is_json_unless_text_is_asked_for(payload: str) -> None:
    assert encode(payload).content_type == "application/json"
    assert back(encode(payload)) == payload
    encoded = encode(payload, "text")
    assert encoded == Encoded(payload.encode(), "text/plain", "utf-8")
    assert back(encoded) == payload


@pytest.mark.parametrize(
    ("serializer", "content_type", "content_encoding"),
    [
        ("json", "application/json", "utf-8"),
        ("msgpack", "application/x-msgpack", "binary"),
        ("pickle", "application/x-python-serialize", "binary"),
        ("application/x-msgpack", "application/x-msgpack", "binary"),
    ],
)
def test_the_names_on_the_wire_are_those_of_kombu(
    serializer: str, content_type: str, content_encoding: str
) -> None:
    encoded = encode({"a": 1}, serializer)
    assert (encoded.content_type, encoded.content_encoding) == (content_type, content_encoding)
    assert encoded.compression is None


@given(
    body=st.binary(max_size=300),
    content_type=st.sampled_from([*TYPES, "text/html", "", "APPLICATION/JSON; charset=x"])
    | st.text(),
    content_encoding=st.sampled_from(["utf-8", "binary", "", "latin-1", "idna", "zlib"])
    | st.text(),
    compression=st.sampled_from([None, "zlib", "application/x-gzip", "x-bzip2", ""]),
    packed=st.booleans(),
)
def test_random_bytes_are_read_or_refused_with_a_message_error(
    body: bytes, content_type: str, content_encoding: str, compression: str | None, packed: bool
) -> None:
    try:
        decode(zlib.compress(body) if packed else body, content_type, content_encoding, compression)
    except MessageError:
        return


@settings(max_examples=300)
@given(body=st.lists(st.sampled_from([b"\x91", b"\x81", b"\xa1a", b"\xc0", b"\xdd", b"\xff"])))
def test_random_msgpack_is_read_or_refused_with_a_message_error(body: list[bytes]) -> None:
    try:
        decode(b"".join(body), "application/x-msgpack")
    except MessageError:
        return


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"", "application/json", DecodeError),
        (b'{"a": ', "application/json", DecodeError),
        (b"\xff\xfe", "application/json", DecodeError),
        (b'"\\ud800"', "application/json", DecodeError),
        (b"NaN", "application/json", DecodeError),
        (b"[Infinity]", "application/json", DecodeError),
        (b"1e999", "application/json", DecodeError),
        (b"1" * 5000, "application/json", DecodeError),
        (b"[" * 100_000, "application/json", TooLarge),
        (b'{"a":' * 100_000, "application/json", TooLarge),
        (b"[" * 100_000 + b"]" * 100_000, "application/json", TooLarge),
        (b"", "application/x-msgpack", DecodeError),
        (b"\xdd\xff\xff\xff\xff", "application/x-msgpack", DecodeError),
        (b"\xc1", "application/x-msgpack", DecodeError),
        (b"\x91" * 100_000 + b"\xc0", "application/x-msgpack", TooLarge),
        (b"\x91" * 65 + b"\xc0", "application/x-msgpack", TooLarge),
        (b"\xff", "text/plain", DecodeError),
        (pickle.dumps({"a": 1}), "application/json", DecodeError),
        (b'{"a": 1}', "application/x-msgpack", DecodeError),
    ],
)
def test_bodies_that_lie_or_are_damaged_give_a_typed_error(
    body: bytes, content_type: str, error: type[MessageError]
) -> None:
    with pytest.raises(error, match=content_type):
        decode(body, content_type)


def test_the_last_of_repeated_keys_counts() -> None:
    assert decode(b'{"a":1,"a":2}', "application/json") == {"a": 2}


@given(secret=st.text("xyz", min_size=12))
def test_an_error_never_quotes_the_body(secret: str) -> None:
    for body in (f'{{"{secret}', f'"{secret}" x', f"\x93{secret}"):
        for content_type in TYPES[:3]:
            with pytest.raises(DecodeError) as caught:
                decode(body.encode("latin-1"), content_type)
            assert secret not in str(caught.value)


def test_pickle_is_never_touched_unless_accepted(tmp_path: Path) -> None:
    path = tmp_path / "canary"
    body = pickle.dumps(Canary(path))
    for content_type in [
        *TYPES,
        "application/x-python-serialize",
        "",
        "Application/X-Python-Serialize ",
    ]:
        for accept in (None, [], ["json"], ALL, "json", "not-pickle", "x,pickle", ["PICKLE"]):
            try:
                decode(body, content_type, "binary", accept=accept)
            except MessageError:
                pass
            assert not path.exists()
    with pytest.raises(ContentDisallowed):
        decode(zlib.compress(body), "application/x-python-serialize", "binary", "zlib")
    assert not path.exists()
    decode(body, "application/x-python-serialize", "binary", accept=["pickle"])
    assert path.exists()


def test_pickle_works_where_both_sides_name_it() -> None:
    encoded = encode({1, 2}, "pickle")
    assert back(encoded, accept=["pickle"]) == {1, 2}
    assert back(encoded, accept=["application/x-python-serialize"]) == {1, 2}
    with pytest.raises(ContentDisallowed, match=r"\(pickle\).*json, msgpack, raw, text.*trusted"):
        back(encoded)


def test_a_damaged_pickle_is_a_decode_error() -> None:
    for body in (b"", b"garbage", pickle.dumps({"a": 1})[:-3], b"cno_such_module\nx\n."):
        with pytest.raises(DecodeError, match="x-python-serialize"):
            decode(body, "application/x-python-serialize", accept=["pickle"])


@pytest.mark.parametrize(
    ("content_type", "accept", "hint"),
    [
        ("application/json", ["msgpack"], "(json); accepted here: msgpack; add 'json' to accept"),
        ("application/json", [], "accepted here: nothing"),
        (
            "application/x-yaml",
            None,
            "'application/x-yaml'; accepted here: json, msgpack, raw, text",
        ),
        ("", None, "no content type"),
        ("y" * 10_000, None, "yyyyyyyyyy"),
    ],
)
def test_a_refused_content_type_is_named_with_what_is_accepted(
    content_type: str, accept: list[str] | None, hint: str
) -> None:
    with pytest.raises(ContentDisallowed) as caught:
        decode(b"1", content_type, accept=accept)
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 400


def test_content_types_may_carry_parameters_and_capitals() -> None:
    assert decode(b"1", "Application/JSON; charset=utf-8") == 1


def test_accept_takes_names_content_types_and_aliases() -> None:
    for accept in (["json"], ("application/json",), frozenset({"json"}), "json"):
        assert decode(b"1", "application/json", accept=accept) == 1
    assert decode(b"\x01", "application/msgpack", accept=["application/msgpack"]) == 1
    assert DEFAULT_CODECS.accepting(None) == frozenset(ALL)
    assert DEFAULT_CODECS.accepting(["application/json", "pickle"]) == {"json", "pickle"}
    assert DEFAULT_CODECS.accepting("json") == {"json"}
    with pytest.raises(ConfigError, match="did you mean 'json'"):
        DEFAULT_CODECS.accepting(["jsn"])


def test_text_in_latin_1_is_read_and_other_encodings_are_refused() -> None:
    assert decode("é".encode("latin-1"), "text/plain", "ISO-8859-1") == "é"
    assert decode('"é"'.encode("latin-1"), "application/json", "latin-1") == "é"
    assert decode(b"1", "application/json", "ASCII") == 1
    for wrong in ("utf-16", "idna", "rot13", "z" * 10_000):
        with pytest.raises(DecodeError, match="send utf-8"):
            decode(b"1", "application/json", wrong)


def test_a_zip_bomb_is_refused_in_bounded_memory() -> None:
    bomb = zlib.compress(b"\0" * (50 << 20))
    assert len(bomb) < 60_000
    tracemalloc.start()
    with pytest.raises(TooLarge, match="max_ratio=100"):
        decode(bomb, "application/data", "binary", "zlib")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_decompression_stops_at_the_absolute_limit_too() -> None:
    limits = Limits(max_decompressed=1000)
    body = zlib.compress(b"x" * 1001)
    with pytest.raises(TooLarge, match="more than 1000 bytes"):
        decode(body, "application/data", "binary", "zlib", limits=limits)
    exact = zlib.compress(b"x" * 1000)
    assert decode(exact, "application/data", "binary", "zlib", limits=limits) == b"x" * 1000


def test_small_bodies_may_shrink_by_any_ratio() -> None:
    payload = b"\0" * (1 << 20)
    encoded = encode(payload, compression="zlib")
    assert len(payload) / len(encoded.body) > 500
    assert back(encoded) == payload


def test_compression_is_undone_once_and_gzip_is_read_too() -> None:
    twice = zlib.compress(zlib.compress(b'"x"'))
    with pytest.raises(DecodeError):
        decode(twice, "application/json", "utf-8", "zlib")
    for name in ("gzip", "zlib", "application/x-gzip"):
        assert decode(gzip.compress(b'"x"'), "application/json", "utf-8", name) == "x"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"garbage", "damaged"),
        (b"", "truncated"),
        (zlib.compress(b"1")[:-2], "truncated"),
        (zlib.compress(b"1") + b"x", "followed"),
    ],
)
def test_damaged_compression_is_a_decode_error(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode(body, "application/json", "utf-8", "zlib")


def test_an_unknown_compression_is_disallowed_on_receipt_and_a_wrong_call_on_sending() -> None:
    with pytest.raises(ContentDisallowed, match="application/x-bz2"):
        decode(b"", "application/json", "utf-8", "application/x-bz2")
    with pytest.raises(ConfigError, match="did you mean 'zlib'"):
        encode(1, compression="zlip")
    with pytest.raises(ConfigError, match="did you mean 'json'"):
        encode(1, "jason")


def test_what_receivers_would_refuse_for_its_ratio_is_sent_uncompressed() -> None:
    payload = b"\0" * (8 << 20)
    encoded = encode(payload, compression="zlib")
    assert (encoded.compression, encoded.body) == (None, payload)
    assert back(encoded) == payload


def test_oversize_is_refused_on_both_sides_before_anything_else() -> None:
    limits = Limits(max_bytes=10)
    assert back(encode(b"x" * 10, limits=limits), limits=limits) == b"x" * 10
    with pytest.raises(TooLarge, match="11 bytes exceeds max_bytes=10"):
        encode(b"x" * 11, limits=limits)
    with pytest.raises(TooLarge, match="11 bytes exceeds max_bytes=10"):
        decode(b"x" * 11, "no/such-type", limits=limits)
    with pytest.raises(TooLarge, match="max_bytes=10"):
        encode(bytes(range(200)), compression="zlib", limits=limits)


def nested(depth: int) -> Any:
    payload: Any = []
    for level in range(depth - 1):
        payload = [payload] if level % 2 else {"k": payload}
    return payload


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_the_depth_limit_is_exact_on_both_sides(serializer: str) -> None:
    assert back(encode(nested(64), serializer)) == nested(64)
    with pytest.raises(TooLarge, match="max_depth=64"):
        encode(nested(65), serializer)
    with pytest.raises(TooLarge, match="max_depth=64"):
        encode(nested(5000), serializer)
    deep = encode(nested(65), serializer, limits=Limits(max_depth=65))
    with pytest.raises(TooLarge, match="max_depth=64"):
        back(deep)


def depth_of(payload: Any) -> int:
    if isinstance(payload, dict):
        return 1 + max(map(depth_of, payload.values()), default=0)
    if isinstance(payload, list):
        return 1 + max(map(depth_of, payload), default=0)
    return 0


tricky = st.text('[]{}"\\,: xn', max_size=6)
deep_documents = st.recursive(
    tricky,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tricky, inner, max_size=4),
    max_leaves=30,
)


@pytest.mark.slow
@settings(max_examples=500)
@given(payload=deep_documents, limit=st.integers(1, 6), wrap=st.integers(0, 12))
@example(payload=['"', "]]]]", [[[]]], "[[[["], limit=4, wrap=0)
@example(payload=["\\", "]\\\\", [["\\\\\\"]], '["\\"]'], limit=2, wrap=1)
def test_the_depth_of_encoded_bytes_is_measured_as_it_is(
    payload: Any, limit: int, wrap: int
) -> None:
    for _ in range(wrap):
        payload = [payload]
    deeper = depth_of(payload) > limit
    assert json_deeper_than(encode(payload, "json").body, limit) is deeper
    assert payload_deeper_than(payload, limit) is deeper
    assert msgpack_deeper_than(encode(payload, "msgpack").body, limit) in (None, deeper)


def test_the_depth_of_large_bodies_is_measured_across_blocks() -> None:
    wide = b"[" + b"[[[],[]],[[],[[[]]]]]," * 5000 + b"[]]"
    assert not json_deeper_than(wide, 6)
    assert json_deeper_than(wide, 5)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_refuses_numbers_that_it_cannot_write(number: float) -> None:
    for payload in (number, [1, number], {"a": [{"b": number}], "n": None}, [2**70, (number,)]):
        with pytest.raises(MessageError, match="NaN and infinities"):
            encode(payload)
        assert has_not_finite(payload)
    assert encode([None, 2**70, "null", 1.5, b"\xcb\x7f\xf8"]).content_type == "application/json"


@pytest.mark.slow
@given(payload=documents)
def test_finite_documents_are_never_taken_for_infinite_ones(payload: Any) -> None:
    assert not has_not_finite([payload, None])


@pytest.mark.parametrize(
    ("payload", "serializer", "hints"),
    [
        ({"a": [1, {"b": object()}]}, None, ["json", "payload['a'][1]['b']", "type object"]),
        (object(), None, ["type object"]),
        ({(1, 2): 3}, None, ["json", "type dict"]),
        ("\ud800", None, ["json", "surrogates"]),
        pytest.param(10**5000, None, ["json"], id="5001 digits"),
        ([2**70], "msgpack", ["msgpack", "payload[0]", "type int"]),
        (b"x", "json", ["raw"]),
        ({"a": 1}, "text", ["text takes a str, not dict"]),
        ("x", "raw", ["raw takes bytes, not str"]),
        (lambda: None, "pickle", ["pickle"]),
    ],
)
def test_what_cannot_be_written_is_named_with_its_place(
    payload: Any, serializer: str | None, hints: list[str]
) -> None:
    with pytest.raises(MessageError) as caught:
        encode(payload, serializer)
    assert not isinstance(caught.value, DecodeError | TooLarge)
    for hint in hints:
        assert hint in str(caught.value)


def test_a_payload_that_contains_itself_is_too_deep() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for serializer in ("json", "msgpack"):
        with pytest.raises(TooLarge):
            encode(loop, serializer)


def upper(name: str = "upper", content_type: str = "text/upper", **options: Any) -> Codec:
    return Codec(
        name,
        content_type,
        "utf-8",
        lambda payload: str(payload).upper().encode(),
        lambda body: body.decode(),
        **options,
    )


def test_a_codec_is_added_to_a_new_value_and_used_when_accepted() -> None:
    codecs = DEFAULT_CODECS.with_codec(upper())
    assert "upper" not in DEFAULT_CODECS.names
    assert codecs.names == ("json", "msgpack", "pickle", "raw", "text", "upper")
    encoded = encode("a", "upper", codecs=codecs)
    with pytest.raises(ContentDisallowed):
        back(encoded, codecs=codecs)
    assert back(encoded, codecs=codecs, accept=["upper"]) == "A"
    assert back(encoded, codecs=codecs.with_codec(upper(safe=True))) == "A"


def test_two_codecs_cannot_share_a_content_type_or_a_name() -> None:
    with pytest.raises(ConfigError, match="'text' and 'upper' both claim"):
        DEFAULT_CODECS.with_codec(upper(content_type="text/plain"))
    with pytest.raises(ConfigError, match="two codecs are named 'upper'"):
        Codecs([upper(), upper()])


def test_whatever_a_codec_raises_becomes_a_short_message_error() -> None:
    def fail(_: Any) -> Any:
        raise KeyError("long\n" * 1000)

    codecs = Codecs([Codec("bad", "x/bad", "binary", fail, fail, safe=True)])
    with pytest.raises(MessageError, match="KeyError") as sent:
        encode(1, "bad", codecs=codecs)
    with pytest.raises(DecodeError, match="KeyError") as received:
        decode(b"1", "x/bad", codecs=codecs)
    for caught in (sent, received):
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": 0},
        {"max_depth": -1},
        {"max_ratio": float("nan")},
        {"max_bytes": 1.5},
        {"max_depth": True},
    ],
)
def test_limits_refuse_values_without_sense_and_name_the_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"Limits\.{next(iter(wrong))}"):
        Limits(**wrong)

"""Payloads to bytes and back: codecs, compression, accept lists and limits.

``encode`` and ``decode`` are pure functions over a ``Codecs`` value, which is immutable: adding a
codec gives a new one. The names on the wire are kombu's, so that its programs can read us.

What arrives is hostile until proven otherwise. In this order, and before any codec sees a byte:
the size is checked; the content type must be accepted; a compressed body is inflated once, never
twice, into a bounded buffer; the nesting is measured. Only then the codec runs, and whatever it
raises becomes a ``DecodeError`` that names the content type and the reason, never the body. Pickle
runs code while it decodes: it is used only where the sender names it and the receiver lists it.

What is sent obeys the same limits, so that nobody sends what nobody can read.

JSON is strict: NaN and infinities are refused in both directions, also lone surrogates and numbers
beyond a double or beyond 4,300 digits. Of a repeated key the last value counts. Tuples and sets
arrive as lists; datetimes, UUIDs, decimals and nested bytes (base64) arrive as strings.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NoReturn

import msgspec

from queue_core.errors import (
    ConfigError,
    ContentDisallowed,
    DecodeError,
    MessageError,
    TooLarge,
    nearest,
)
from queue_core.limits import (
    DEFAULT_LIMITS,
    Limits,
    has_not_finite,
    inflate,
    json_deeper_than,
    msgpack_deeper_than,
    payload_deeper_than,
)

__all__ = [
    "DEFAULT_CODECS",
    "DEFAULT_LIMITS",
    "Codec",
    "Codecs",
    "Encoded",
    "Limits",
    "decode",
    "encode",
]

_BYTES: Final = (bytes, bytearray, memoryview)
_PLAIN: Final = frozenset({"utf-8", "binary", "", "utf8", "UTF-8", "us-ascii", "ascii"})
_LATIN: Final = frozenset({"latin-1", "latin1", "iso-8859-1"})
_ZLIB: Final = "application/x-gzip"
_COMPRESSIONS: Final = ("zlib", "gzip", _ZLIB)
_SHOWN: Final = 80


class Encoded(msgspec.Struct, frozen=True):
    """A payload ready to be sent.

    Attributes:
        body: the bytes.
        content_type, content_encoding: what they are, for the properties of the message.
        compression: for the header ``compression``; None when the body is not compressed.
    """

    body: bytes
    content_type: str
    content_encoding: str
    compression: str | None = None


class Codec(msgspec.Struct, frozen=True):
    """One way to write payloads.

    Attributes:
        name: what users call it, as in ``serializer="json"`` and ``accept=["json"]``.
        content_type: what it is called on the wire, in lower case.
        content_encoding: ``utf-8`` for text, ``binary`` otherwise.
        encode: payload to bytes; may raise anything, which becomes a `MessageError`.
        decode: bytes to payload; may raise anything, which becomes a `DecodeError`. Gets bytes that
            may come from anybody.
        safe: whether a consumer that does not say what it accepts takes it.
        aliases: other content types that are read as this one.
        deeper_than: given encoded bytes and a limit, whether they nest deeper; it answers None
            when only the payload itself can tell. Formats without nesting need no such function.
    """

    name: str
    content_type: str
    content_encoding: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    safe: bool = False
    aliases: tuple[str, ...] = ()
    deeper_than: Callable[[bytes, int], bool | None] | None = None


class Codecs:
    """The codecs that a connection knows: an immutable value, safe to share between threads."""

    __slots__ = ("_by_name", "_by_type")

    def __init__(self, codecs: Iterable[Codec] = ()) -> None:
        """Hold ``codecs``.

        Raises:
            ConfigError: two of them share a name or a content type.
        """
        by_name: dict[str, Codec] = {}
        by_type: dict[str, Codec] = {}
        for codec in codecs:
            if codec.name in by_name:
                raise ConfigError(f"two codecs are named {codec.name!r}")
            by_name[codec.name] = codec
            for content_type in (codec.content_type, *codec.aliases):
                other = by_type.setdefault(content_type, codec)
                if other is not codec:
                    raise ConfigError(
                        f"the codecs {other.name!r} and {codec.name!r} both claim the content "
                        f"type {content_type!r}; give one of them another"
                    )
        self._by_name: Mapping[str, Codec] = MappingProxyType(by_name)
        self._by_type: Mapping[str, Codec] = MappingProxyType(by_type)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all codecs, sorted."""
        return tuple(sorted(self._by_name))

    def with_codec(self, codec: Codec) -> Codecs:
        """Return these codecs and ``codec``, which replaces one of the same name.

        Raises:
            ConfigError: another codec has the same content type.
        """
        return Codecs([*(c for c in self._by_name.values() if c.name != codec.name), codec])

    def named(self, name: str) -> Codec:
        """Return the codec with this name or content type.

        Raises:
            ConfigError: there is none; the message names the nearest and all.
        """
        codec = None
        if isinstance(name, str):
            codec = self._by_name.get(name) or self._by_type.get(name)
        if codec is None:
            raise ConfigError(f"unknown serializer {_shown(name)}{_nearest(name, self._by_name)}")
        return codec

    def accepting(self, accept: Sequence[str] | None) -> frozenset[str]:
        """Return the names of the codecs that ``accept`` lists by name or content type.

        None means the safe ones. For checking a user's list early: ``decode`` takes it as it is.

        Raises:
            ConfigError: an entry is unknown.
        """
        if accept is None:
            return frozenset(codec.name for codec in self._by_name.values() if codec.safe)
        if isinstance(accept, str):
            accept = (accept,)
        if not isinstance(accept, Iterable):
            raise ConfigError(f"the serializers to accept are a list of names, not {accept!r:.60}")
        return frozenset(self.named(entry).name for entry in accept)

    def for_content(self, content_type: str) -> Codec | None:
        """Return the codec for a content type from the wire, or None; parameters are ignored."""
        codec = self._by_type.get(content_type)
        if codec is None and content_type:
            codec = self._by_type.get(content_type[:256].partition(";")[0].strip().lower())
        return codec


def encode(
    payload: Any,
    serializer: str | None = None,
    compression: str | None = None,
    *,
    codecs: Codecs | None = None,
    limits: Limits | None = None,
) -> Encoded:
    """Turn ``payload`` into bytes.

    Without a ``serializer`` bytes travel raw and all else as JSON. ``compression`` is ``zlib``; a
    body that shrinks so much that receivers would refuse it is sent as it is.

    Raises:
        ConfigError: serializer or compression is unknown.
        MessageError: the payload cannot be written this way; it names where in the payload.
        TooLarge: the result exceeds ``limits``.
    """
    codecs = codecs or DEFAULT_CODECS
    limits = limits or DEFAULT_LIMITS
    if serializer is None:
        serializer = "raw" if isinstance(payload, _BYTES) else "json"
    codec = codecs.named(serializer)
    try:
        body = codec.encode(payload)
        deep = codec.deeper_than is not None and codec.deeper_than(body, limits.max_depth)
        if deep is None:
            deep = payload_deeper_than(payload, limits.max_depth)
    except RecursionError:
        deep = True
    except MessageError:
        raise
    except Exception as error:
        _raise_unencodable(codec, payload, error)
    if deep:
        raise TooLarge(
            f"the payload nests deeper than max_depth={limits.max_depth}; flatten it, "
            f"or raise Limits.max_depth on both sides"
        )
    if compression is not None:
        return _compress(codec, body, compression, limits)
    if len(body) > limits.max_bytes:
        raise _oversize(len(body), limits)
    return Encoded(body, codec.content_type, codec.content_encoding)


def decode(
    body: bytes,
    content_type: str,
    content_encoding: str = "",
    compression: str | None = None,
    *,
    accept: Sequence[str] | frozenset[str] | None = None,
    codecs: Codecs | None = None,
    limits: Limits | None = None,
) -> Any:
    """Turn the bytes of a message into its payload.

    ``accept`` lists names or content types; None means the safe codecs, an empty list nothing.

    Raises:
        ContentDisallowed: content type or compression is unknown or not accepted. The body was
            not touched.
        TooLarge: size, nesting or compression ratio exceed ``limits``.
        DecodeError: the body is not what its content type says.
    """
    codecs = codecs or DEFAULT_CODECS
    limits = limits or DEFAULT_LIMITS
    if len(body) > limits.max_bytes:
        raise _oversize(len(body), limits)
    codec = codecs._by_type.get(content_type) or codecs.for_content(content_type)
    if codec is None or not (codec.safe if accept is None else _accepted(codec, accept)):
        _raise_disallowed(codec, content_type, accept, codecs)
    if compression:
        if compression not in _COMPRESSIONS:
            raise ContentDisallowed(
                f"the compression {_shown(compression)} of a {codec.content_type} body is not "
                f"supported; the sender can use zlib or none"
            )
        body = inflate(body, limits)
    if content_encoding not in _PLAIN:
        body = _transcode(body, codec, content_encoding)
    try:
        deep = codec.deeper_than is not None and codec.deeper_than(body, limits.max_depth)
        if not deep:
            payload = codec.decode(body)
            if deep is False or not payload_deeper_than(payload, limits.max_depth):
                return payload
    except MessageError:
        raise
    except RecursionError:
        pass
    except Exception as error:
        raise _undecodable(codec, _reason(error)) from error
    raise TooLarge(
        f"a {codec.content_type} body nests deeper than max_depth={limits.max_depth}; "
        f"raise Limits.max_depth if the sender is trusted"
    )


def _accepted(codec: Codec, accept: Sequence[str] | frozenset[str]) -> bool:
    if isinstance(accept, str):
        accept = (accept,)  # else "in" would look for a part of the text
    return (
        codec.name in accept
        or codec.content_type in accept
        or any(alias in accept for alias in codec.aliases)
    )


def _compress(codec: Codec, body: bytes, compression: str, limits: Limits) -> Encoded:
    if not isinstance(compression, str) or compression not in _COMPRESSIONS:
        hint = _nearest(compression, _COMPRESSIONS)
        raise ConfigError(f"unknown compression {_shown(compression)}{hint}")
    packed = zlib.compress(body) if len(body) <= limits.max_decompressed else body
    if packed is body or len(body) > limits.inflated(len(packed)):
        packed, name = body, None
    else:
        name = _ZLIB
    if len(packed) > limits.max_bytes:
        raise _oversize(len(packed), limits)
    return Encoded(packed, codec.content_type, codec.content_encoding, name)


def _transcode(body: bytes, codec: Codec, content_encoding: str) -> bytes:
    """Bring a text body to UTF-8. Few encodings: Python has some that run for very long."""
    name = content_encoding.lower() if len(content_encoding) <= _SHOWN else content_encoding
    if name in _LATIN and codec.content_encoding == "utf-8":
        return body.decode("latin-1").encode("utf-8")
    if name in _PLAIN or name == "ascii-8bit":
        return body
    raise _undecodable(
        codec, f"the content encoding {_shown(content_encoding)} is not supported, send utf-8"
    )


def _raise_disallowed(
    codec: Codec | None, content_type: str, accept: Iterable[str] | None, codecs: Codecs
) -> NoReturn:
    known = f" ({codec.name})" if codec is not None else ""
    what = f"the content type {_shown(content_type)}{known}" if content_type else "no content type"
    entries = (accept,) if isinstance(accept, str) else accept
    listed = sorted(codecs.accepting(None)) if entries is None else sorted(map(str, entries))
    if codec is None:
        advice = "the raw bytes are in message.body; Codecs.with_codec adds a codec"
    elif codec.safe:
        advice = f"add {codec.name!r} to accept"
    else:
        advice = f"add {codec.name!r} to accept only if every sender is trusted"
    shown = ", ".join(listed) or "nothing"
    raise ContentDisallowed(f"a message has {what}; accepted here: {shown}; {advice}")


def _raise_unencodable(codec: Codec, payload: Any, error: Exception) -> NoReturn:
    path, value = _find_unencodable(codec, payload)
    where = f" at payload{path}" if path else ""
    raise MessageError(
        f"the payload cannot be written as {codec.name}: {_reason(error)} "
        f"(type {type(value).__qualname__}{where}); convert it, or choose another serializer"
    ) from error


def _find_unencodable(codec: Codec, payload: Any) -> tuple[str, Any]:
    """Return path and value of the innermost part that the codec refuses; slow, for errors only."""
    path, value = "", payload
    for _ in range(DEFAULT_LIMITS.max_depth):
        if isinstance(value, dict):
            parts: Iterable[tuple[Any, Any]] = value.items()
        elif isinstance(value, list | tuple):
            parts = enumerate(value)
        else:
            break
        for key, part in parts:
            try:
                codec.encode(part)
            except Exception:
                path, value = f"{path}[{_shown(key)}]", part
                break
        else:
            break
    return path, value


def _oversize(size: int, limits: Limits) -> TooLarge:
    return TooLarge(
        f"a body of {size} bytes exceeds max_bytes={limits.max_bytes}; store it elsewhere and send "
        f"a reference, or raise Limits.max_bytes on both sides"
    )


def _undecodable(codec: Codec, reason: str) -> DecodeError:
    return DecodeError(f"a body is not valid {codec.content_type}: {reason}")


def _reason(error: Exception) -> str:
    """Return what an error says, short and on one line."""
    text = "".join(c if c.isprintable() else "?" for c in str(error)[:200])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shown(value: object) -> str:
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _nearest(name: object, known: Iterable[str]) -> str:
    names = sorted(known)
    near = nearest(str(name)[:_SHOWN], names)
    return (f": did you mean {near!r}?" if near else ";") + f" known: {', '.join(names)}"


def _encode_json(payload: Any) -> bytes:
    body = _json_encoder.encode(payload)
    # The encoder writes null for NaN and infinities, so only bodies with a null can hide one.
    if b"null" in body and has_not_finite(payload):
        raise ValueError("NaN and infinities have no form in JSON")
    if isinstance(payload, _BYTES):
        raise TypeError('bytes have no form in JSON, use serializer="raw"')
    return body


def _encode_text(payload: Any) -> bytes:
    if not isinstance(payload, str):
        raise TypeError(f"text takes a str, not {type(payload).__qualname__}")
    return payload.encode("utf-8")


def _decode_text(body: bytes) -> str:
    return body.decode("utf-8")


def _encode_raw(payload: Any) -> bytes:
    if not isinstance(payload, _BYTES):
        raise TypeError(f"raw takes bytes, not {type(payload).__qualname__}")
    return bytes(payload)


def _encode_pickle(payload: Any) -> bytes:
    import pickle  # noqa: PLC0415 - 2 ms, for the few who ask for it

    return pickle.dumps(payload, protocol=4)


def _decode_pickle(body: bytes) -> Any:
    import pickle  # noqa: PLC0415 - as above

    return pickle.loads(body)


_json_encoder: Final = msgspec.json.Encoder()
_json_decoder: Final = msgspec.json.Decoder()
_msgpack_encoder: Final = msgspec.msgpack.Encoder()
_msgpack_decoder: Final = msgspec.msgpack.Decoder()

DEFAULT_CODECS: Final = Codecs(
    [
        Codec(
            "json",
            "application/json",
            "utf-8",
            _encode_json,
            _json_decoder.decode,
            safe=True,
            deeper_than=json_deeper_than,
        ),
        Codec(
            "msgpack",
            "application/x-msgpack",
            "binary",
            _msgpack_encoder.encode,
            _msgpack_decoder.decode,
            safe=True,
            aliases=("application/msgpack", "application/vnd.msgpack"),
            deeper_than=msgpack_deeper_than,
        ),
        Codec(
            "raw",
            "application/data",
            "binary",
            _encode_raw,
            bytes,
            safe=True,
            aliases=("application/octet-stream",),
        ),
        Codec("text", "text/plain", "utf-8", _encode_text, _decode_text, safe=True),
        Codec("pickle", "application/x-python-serialize", "binary", _encode_pickle, _decode_pickle),
    ]
)

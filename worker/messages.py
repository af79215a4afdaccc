"""What a message says of the task that it asks for."""

from __future__ import annotations

from collections.abc import Iterable

from queue_core import DecodeError, Message, Properties, decode
from queue_core.worker.envelopes import MARK, opened
from queue_core.worker.protocol import Call, read_call


def read_message(properties: Properties, body: bytes, accept: Iterable[str]) -> Call:
    """Decode a task message.

    Raises:
        MessageError: it is none, or is damaged.
    """
    headers = properties.headers
    compression = headers.get("compression")
    payload = decode(
        body,
        properties.content_type,
        properties.content_encoding,
        compression if isinstance(compression, str) else None,
        accept=tuple(accept),
    )
    if compression or MARK in body:
        payload = opened(payload)
    return read_call(headers, payload, properties.correlation_id, properties.reply_to)


def properties_of(message: Message) -> Properties:
    """Return the properties, or empty ones if they are damaged: a message is kept all the same."""
    try:
        return message.properties
    except DecodeError:
        return Properties()


def id_in(properties: Properties) -> str:
    """Return the id of the task that a message with these asks for, or an empty string."""
    known = properties.headers.get("id")
    return known if isinstance(known, str) else properties.correlation_id or ""


def name_in(properties: Properties) -> str:
    """Return the name of the task that a message with these asks for, or an empty string."""
    known = properties.headers.get("task")
    return known if isinstance(known, str) else ""


def task_id(message: Message) -> str:
    """Return the id of the task that the message asks for, or an empty string."""
    return id_in(properties_of(message))


def task_name(message: Message) -> str:
    """Return the name of the task that the message asks for, or an empty string."""
    return name_in(properties_of(message))


def label(message: Message) -> str:
    """Name the task, its id and its queue, for the log."""
    return f"{task_name(message) or 'message'} {task_id(message)[:8]} from {message.queue}"

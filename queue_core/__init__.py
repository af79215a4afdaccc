"""One messaging API over RabbitMQ, Redis, SQL databases and memory.

A mailbox and a task worker are built on it.

Start with `Connection`. Transports are written against `queue_core.transport`.
"""

from queue_core.arguments import check_count, check_kind, copy_headers, need_seconds
from queue_core.connection import Connection
from queue_core.consumer import Consumer
from queue_core.durability import Durability, Survives, Weakness
from queue_core.errors import (
    AccessRefused,
    AlreadySettled,
    BrokerFull,
    Closed,
    ConfigError,
    ConnectionLost,
    ConnectTimeout,
    ContentDisallowed,
    DecodeError,
    MessageError,
    NotConfirmed,
    PublishError,
    QueueCoreError,
    QueueNotFound,
    Refused,
    RemoteError,
    SessionLost,
    StaleDelivery,
    StoreCorrupt,
    TooLarge,
    TopologyMismatch,
    TransportError,
    Unroutable,
    Unsupported,
    UsageError,
    counted,
    nearest,
)
from queue_core.identifiers import fresh_id, fresh_uuid
from queue_core.message import Message, Properties, Publication, find_reader
from queue_core.policy import Backoff, Clock, Deadline, SystemClock
from queue_core.process import PerProcess, process_id
from queue_core.producer import Producer
from queue_core.receipt import Receipt
from queue_core.registry import find_transport, known_schemes, register_transport
from queue_core.schema import Schema
from queue_core.serialization import Codec, Codecs, Limits, decode, encode
from queue_core.simple_queue import SimpleQueue
from queue_core.topology import Binding, Exchange, Queue
from queue_core.transport import Features, KeyEntry, KeyValue, KeyWrite, QueueInfo

__version__ = "0.1.0.dev0"

__all__ = [
    "AccessRefused",
    "AlreadySettled",
    "Backoff",
    "Binding",
    "BrokerFull",
    "Clock",
    "Closed",
    "Codec",
    "Codecs",
    "ConfigError",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "Consumer",
    "ContentDisallowed",
    "Deadline",
    "DecodeError",
    "Durability",
    "Exchange",
    "Features",
    "KeyEntry",
    "KeyValue",
    "KeyWrite",
    "Limits",
    "Message",
    "MessageError",
    "NotConfirmed",
    "PerProcess",
    "Producer",
    "Properties",
    "Publication",
    "PublishError",
    "Queue",
    "QueueCoreError",
    "QueueInfo",
    "QueueNotFound",
    "Receipt",
    "Refused",
    "RemoteError",
    "Schema",
    "SessionLost",
    "SimpleQueue",
    "StaleDelivery",
    "StoreCorrupt",
    "Survives",
    "SystemClock",
    "TooLarge",
    "TopologyMismatch",
    "TransportError",
    "Unroutable",
    "Unsupported",
    "UsageError",
    "Weakness",
    "check_count",
    "check_kind",
    "copy_headers",
    "counted",
    "decode",
    "encode",
    "find_reader",
    "find_transport",
    "fresh_id",
    "fresh_uuid",
    "known_schemes",
    "nearest",
    "need_seconds",
    "process_id",
    "register_transport",
]

"""The settings of an app: what they are called, what they mean, and how their values are read.

`Settings` is a plain value, made by `queue_core.worker.configuration` of everything that was said:
in the program, in a file, in the environment, on the command line. Names and meanings are celery's
where celery has such a setting; what of its settings has no place here stands in
`queue_core.worker.celery_settings`. Pure.

The type of a field decides how its value is read: durations are seconds, a ``timedelta``, or a text
such as ``"90s"`` or ``"2h"``; a text is good for every simple type, since the environment has
nothing else.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, NoReturn

import msgspec

from queue_core import ConfigError, Exchange, Queue
from queue_core.worker.patience import read_policy
from queue_core.worker.rates import per_second
from queue_core.worker.units import bytes_of, seconds_of

Seconds = float
Names = tuple[str, ...]
Kibibytes = int
Rate = str | float
Broker = str
Backend = str
Zone = str
Policy = dict[str, Any]
Queues = tuple[Queue, ...]
Routes = Any
Annotations = Any


class Settings(msgspec.Struct, kw_only=True):
    """The settings of one app, complete.

    Attributes:
        broker_url: the broker.
        broker_connection_timeout: seconds for each attempt to connect.
        result_backend: where results are kept: a URL, or ``rpc://`` to send them to the waiting
            process only. None: in the broker where it has a key-value store, by rpc elsewhere.
        result_expires: seconds for which results are kept; None or 0: for ever.
        result_failure_expires: the same for failures, which somebody may want to look at later.
        result_max_size: bytes that a result may have; a task that returns more has failed.
        accept_content: the serializers that workers decode.
        timezone: of an ``eta`` or ``expires`` that says none.
        imports, include: modules with tasks, which workers import.
        task_serializer: for arguments.
        task_compression: of messages: ``zlib``.
        task_default_queue: for tasks that nothing else sends elsewhere.
        task_default_queue_type: of that queue on AMQP: ``classic``, ``quorum``, ``auto``.
        task_default_exchange, task_default_exchange_type, task_default_routing_key: how it is
            bound; None: by an exchange and a key of the queue's name.
        task_queues: queues that are not the plain ones: with ``max_priority``, an exchange ... A
            worker takes from all of them and from the default one unless it is told by ``-Q``.
        task_create_missing_queues: queues that are not in ``task_queues`` are made when they are
            named. False: naming one is an error.
        task_create_missing_queue_type: of those queues on AMQP.
        task_queue_max_priority: 1 to 9: of queues that do not say.
        task_routes: which task goes where; see `queue_core.worker.routes`.
        task_annotations: options of tasks by name; see `queue_core.worker.annotations`.
        task_default_priority: 0 to 9.
        task_default_rate_limit: ``"10/s"``, ``"100/m"``, ``"2/h"``: starts per worker.
        task_time_limit, task_soft_time_limit: seconds that a task may run.
        task_acks_late: ack after the run; False: before it, so that it runs at most once, and not
            at all if its worker dies.
        task_ignore_result: nobody will ask for results.
        task_store_errors_even_if_ignored: keep failures all the same.
        task_track_started: tell the backend when a task starts.
        task_track_sent: note in the backend what is sent, a round trip for each: who asks for a
            task by its id then learns whether it waits in a queue, or never was.
        task_publish_retry: try again while the broker is away.
        task_publish_retry_policy: ``timeout``: for how many seconds; celery's ``max_retries``,
            ``interval_start``, ``interval_step``, ``interval_max`` are understood as such a time.
        task_always_eager: do not send tasks, run them here and now: for tests.
        task_eager_propagates: such a run raises what its task raised.
        worker_queues: the queues to take from (``-Q``); none: all that the app defines.
        worker_concurrency: how many tasks at once (``-c``); None: the number of CPUs, or 100 with
            ``asyncio``.
        worker_pool: ``prefork``, ``threads``, ``solo``, ``asyncio`` (``-P``).
        worker_pool_start_method: ``forkserver``: child processes are forked by one that has
            imported the app, if that leaves no threads, no processes and nothing open
            (``fork`` means the same); ``spawn``: each imports the app by itself.
        worker_prefetch: messages to hold at once (``--prefetch``); None: the pool decides.
        worker_prefetch_multiplier: the same per running task.
        worker_max_tasks_per_child: replace a child after so many tasks.
        worker_max_memory_per_child: replace a child with more memory, in KiB, or as ``"500M"``.
        worker_drain: seconds that running tasks may go on after a signal to stop.
        worker_lease: seconds after a worker's death until others get its messages.
        worker_state_db: a file that keeps revoked ids across restarts.
        worker_enable_remote_control: take part in remote control.
        control_exchange: the namespace in which ``app.control`` and ``result.revoke()`` reach
            workers; ``celery``, on RabbitMQ: those of celery's too.
        control_key_name, control_key_file: a key that signs these commands, for workers that obey
            nobody else (``--control-key``): its name, and a file with its secret. A worker signs
            with it, too: that an older one of its name shall leave.
        worker_disable_rate_limits: start tasks as often as they come.
    """

    broker_url: Broker | None = None
    broker_connection_timeout: Seconds = 10.0
    result_backend: Backend | None = None
    result_expires: Seconds | None = 86400.0
    result_failure_expires: Seconds | None = 7 * 86400.0
    result_max_size: int | None = 16 * 1024 * 1024
    accept_content: Names = ("json", "msgpack")
    timezone: Zone = "UTC"
    imports: Names = ()
    include: Names = ()
    task_serializer: str = "json"
    task_compression: str | None = None
    task_default_queue: str = "celery"
    task_default_queue_type: str = "classic"
    task_default_exchange: str | None = None
    task_default_exchange_type: str = "direct"
    task_default_routing_key: str | None = None
    task_queues: Queues = ()
    task_create_missing_queues: bool = True
    task_create_missing_queue_type: str = "classic"
    task_queue_max_priority: int | None = None
    task_routes: Routes = None
    task_annotations: Annotations = None
    task_default_priority: int | None = None
    task_default_rate_limit: Rate | None = None
    task_time_limit: Seconds | None = None
    task_soft_time_limit: Seconds | None = None
    task_acks_late: bool = True
    task_ignore_result: bool = False
    task_store_errors_even_if_ignored: bool = False
    task_track_started: bool = False
    task_track_sent: bool = False
    task_publish_retry: bool = True
    task_publish_retry_policy: Policy = {}
    task_always_eager: bool = False
    task_eager_propagates: bool = False
    worker_queues: Names = ()
    worker_concurrency: int | None = None
    worker_pool: str = "prefork"
    worker_pool_start_method: str = "forkserver"
    worker_prefetch: int | None = None
    worker_prefetch_multiplier: int | None = None
    worker_max_tasks_per_child: int | None = None
    worker_max_memory_per_child: Kibibytes | None = None
    worker_drain: Seconds = 30.0
    worker_lease: Seconds = 30.0
    worker_state_db: str | None = None
    worker_enable_remote_control: bool = True
    control_exchange: str = "queue-core"
    control_key_name: str | None = None
    control_key_file: str | None = None
    worker_disable_rate_limits: bool = False

    def __repr__(self) -> str:
        """Name those that are not the usual ones; no values, which may have passwords."""
        said = [name for name in FIELDS if getattr(self, name) != getattr(DEFAULTS, name)]
        return f"<Settings with {', '.join(said) or 'nothing'} of their own>"

    def update(self, *_: object, **__: object) -> NoReturn:
        """Say how settings are changed; celery's users do it here, by item or by attribute."""
        raise ConfigError(
            "settings are not changed in place; app.config_from_object({...}) says something else, "
            "before the app sends anything"
        )

    __setitem__ = __setattr__ = __delattr__ = update  # frozen, in words that help


DEFAULTS: Final = Settings()
FIELDS: Final[Mapping[str, str]] = Settings.__annotations__
"""Each setting and its type, as it stands above."""

STRUCTURED: Final = frozenset(["Queues", "Routes", "Annotations", "Policy"])
"""Types that no text can say."""

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "task_default_queue_type": ("auto", "classic", "quorum"),
    "task_create_missing_queue_type": ("auto", "classic", "quorum"),
    "task_default_exchange_type": ("direct", "topic", "fanout", "headers"),
    "worker_pool": ("prefork", "threads", "solo", "asyncio"),
    "worker_pool_start_method": ("forkserver", "spawn", "fork"),
}
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "task_default_priority": (0, 9),
    "task_queue_max_priority": (1, 9),
    "worker_concurrency": (1, 10_000),
    "worker_prefetch": (1, 65535),
}
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read_setting(name: str, value: object) -> Any:
    """Return the value of the setting ``name`` in its own type.

    Raises:
        ConfigError: it is no value for it; says what it should be.
    """
    kind, _, optional = FIELDS[name].partition(" | ")
    if optional and (value is None or value == ""):
        return None
    if value is None:
        if usual := getattr(DEFAULTS, name):
            raise ConfigError(f"None is no value for it; leave it out for {usual!r}")
        return getattr(DEFAULTS, name)
    found = _READERS[kind](value)
    if name in _CHOICES and found not in _CHOICES[name]:
        raise ConfigError(f"{found!r} is none of {', '.join(_CHOICES[name])}")
    if name in _RANGES and not _RANGES[name][0] <= found <= _RANGES[name][1]:
        raise ConfigError(f"{found} is not from {_RANGES[name][0]} to {_RANGES[name][1]}")
    if name in ("result_expires", "result_failure_expires") and not found:
        return None
    return found


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"a text was expected, not {value!r:.60}")
    return value


def _boolean(value: object) -> bool:
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise ConfigError(f"true or false was expected, not {value!r:.60}")


def _whole(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"a whole number was expected, not {value!r:.60}")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str) and (found := seconds_of(value)) is not None:
        value = found
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise ConfigError(f"seconds were expected, such as 90, '90s' or '2h', not {value!r:.60}")
    return float(value)


def _kibibytes(value: object) -> int:
    if isinstance(value, str) and (found := bytes_of(value, alone=1024)) is not None:
        return found // 1024
    return _whole(value)


def _names(value: object) -> tuple[str, ...]:
    found = value.split(",") if isinstance(value, str) else value
    if isinstance(found, set | frozenset):
        found = sorted(found)
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise ConfigError(f"a list of names was expected, not {value!r:.60}")
    return tuple(item.strip() for item in found if item.strip())


def _rate(value: object) -> str | float:
    per_second(value)
    return value if isinstance(value, str | float) else float(str(value))


def _broker(value: object) -> str:
    urls = value if isinstance(value, list | tuple) else (value,)
    return ";".join(re.sub(_KOMBUS, r"\1", _text(url)) for url in urls)


_KOMBUS: Final = r"^(?:py(?=amqps?:)|sqla\+)(\w+:)"


def _backend(value: object) -> str:
    url = _text(value)
    if url in ("rpc", "amqp", "amqp://"):
        return "rpc://"
    if url == "disabled":
        raise ConfigError("it cannot be switched off; say task_ignore_result = True")
    return url.removeprefix("db+")


def _queues(value: object) -> tuple[Queue, ...]:
    if isinstance(value, Queue):
        return (value,)
    if isinstance(value, Mapping):
        return tuple(_queue(name, said) for name, said in value.items())
    if isinstance(value, str):
        raise ConfigError(f"queues are a list; for one of this name write [{value!r:.60}]")
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(_queue(getattr(item, "name", item), item) for item in value)
    raise ConfigError(f"queues were expected, not {value!r:.60}")


def _queue(name: object, said: object) -> Queue:
    """Make a queue of one, of its name, or of a dict with celery's words."""
    if isinstance(said, Queue):
        if not said.name:
            raise ConfigError("each queue needs a name")
        return said
    if isinstance(said, str) or said is None:
        return plain_queue(_text(name))
    if not isinstance(said, Mapping):
        raise ConfigError(
            f"queue {name!r} is a {type(said).__module__}.{type(said).__qualname__}; make it with "
            "queue_core.Queue, or say it as a dict"
        )
    given: dict[str, Any] = dict(said)
    for word, field in _QUEUE_WORDS.items():
        if word in given:
            given[field] = given.pop(word)
    name = given.pop("name", name)
    exchange = given.pop("exchange", None) or _text(name)
    kind: Any = given.pop("exchange_type", None) or "direct"
    if not isinstance(exchange, Exchange):
        exchange = Exchange(_text(exchange), kind)
    arguments = dict(given.pop("arguments", None) or {})
    for word, (name_of_field, unit) in _ARGUMENTS.items():
        if word in arguments:
            found = arguments.pop(word)
            given[name_of_field] = found if unit is None else found * unit
    given = {"routing_key": name, "queue_type": "classic", **given, "arguments": arguments}
    unknown = sorted(set(given) - set(Queue.__struct_fields__))
    if unknown:
        raise ConfigError(
            f"queue {name!r} has no {unknown[0]!r}; it has exchange, exchange_type, "
            f"{', '.join(Queue.__struct_fields__[2:])}"
        )
    return Queue(_text(name), exchange=exchange, **given)


_QUEUE_WORDS: Final = {"binding_key": "routing_key", "queue_arguments": "arguments"}
_ARGUMENTS: Final[Mapping[str, tuple[str, float | None]]] = {
    "x-max-priority": ("max_priority", None),
    "x-max-length": ("max_length", None),
    "x-overflow": ("overflow", None),
    "x-queue-type": ("queue_type", None),
    "x-dead-letter-exchange": ("dead_letter_exchange", None),
    "x-dead-letter-routing-key": ("dead_letter_routing_key", None),
    "x-delivery-limit": ("max_deliveries", None),
    "x-message-ttl": ("message_ttl", 0.001),
    "x-expires": ("expires", 0.001),
}
"""What celery's users say as arguments -> the field that it is, and its unit in seconds."""


@functools.lru_cache(maxsize=1000)
def plain_queue(name: str, kind: str = "classic", max_priority: int | None = None) -> Queue:
    """Return what celery declares: a durable queue, and a direct exchange of its name."""
    return Queue(
        name,
        exchange=Exchange(name),
        routing_key=name,
        queue_type=kind,  # type: ignore[arg-type] # checked by the queue's transport
        max_priority=max_priority,
    )


def _zone(value: object) -> str:
    return _text(value)


def _anything(value: object) -> object:
    return value


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "str": _text,
    "bool": _boolean,
    "int": _whole,
    "Seconds": _seconds,
    "Kibibytes": _kibibytes,
    "Names": _names,
    "Rate": _rate,
    "Broker": _broker,
    "Backend": _backend,
    "Zone": _zone,
    "Policy": read_policy,
    "Queues": _queues,
    "Routes": _anything,
    "Annotations": _anything,
}

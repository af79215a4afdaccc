"""Celery's names of settings: its old spellings, and those of its settings that have no place here.

A setting that cannot be honoured is refused, with the reason, unless its value is what happens here
anyway. One that is not needed here, because what it is for is so without it, is accepted, and
``queue-core config show`` lists it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from queue_core.worker.settings import FIELDS

IRREGULAR: Final[Mapping[str, str]] = {
    "celery_message_compression": "task_compression",
    "celery_task_result_expires": "result_expires",
    "celeryd_task_time_limit": "task_time_limit",
    "celeryd_task_soft_time_limit": "task_soft_time_limit",
    "celery_eager_propagates_exceptions": "task_eager_propagates",
    "celery_disable_rate_limits": "worker_disable_rate_limits",
    "celery_enable_remote_control": "worker_enable_remote_control",
    "celery_redirect_stdouts": "worker_redirect_stdouts",
    "celery_redirect_stdouts_level": "worker_redirect_stdouts_level",
    "celery_send_events": "worker_send_task_events",
    "celery_send_task_sent_event": "task_send_sent_event",
    "celery_max_cached_results": "result_cache_max",
    "celery_result_dburi": "database_url",
    "celery_result_engine_options": "database_engine_options",
    "celery_result_db_short_lived_sessions": "database_short_lived_sessions",
    "celery_result_db_tablenames": "database_table_names",
    "celeryd_worker_lost_wait": "worker_lost_wait",
    "celery_backend": "result_backend",
}
"""Old names, in lower case, that do not follow the rules of `spellings`."""

_RECONNECTS: Final = "a connection that breaks is opened again, with growing waits, for ever"
_LOGS: Final = "say -l and --log-format"
_STORED: Final = "results hold that always"
_EVENTS: Final = "workers do not send events"

NEEDLESS: Final[Mapping[str, str]] = {
    "broker_connection_retry": _RECONNECTS,
    "broker_connection_retry_on_startup": _RECONNECTS,
    "broker_connection_max_retries": _RECONNECTS,
    "broker_channel_error_retry": _RECONNECTS,
    "broker_pool_limit": "each process has one connection, which threads share",
    "broker_pool_acquire_timeout": "each process has one connection, which threads share",
    "broker_heartbeat": "it is kept anyway; other seconds: ?heartbeat=30 in the URL",
    "broker_heartbeat_checkrate": "it is kept anyway",
    "broker_native_delayed_delivery_queue_type": "countdowns wait in queues of another kind",
    "control_queue_ttl": "a command has a deadline of its own",
    "control_queue_expires": "queues of nodes that are gone are deleted",
    "control_queue_exclusive": "queues of nodes that are gone are deleted",
    "control_queue_durable": "queues of nodes that are gone are deleted",
    "result_extended": _STORED,
    "result_persistent": "results are as durable as the broker or backend",
    "result_cache_max": "a result is dropped with its AsyncResult",
    "result_exchange": "replies go to the queue that waits for them",
    "result_exchange_type": "replies go to the queue that waits for them",
    "result_backend_always_retry": _RECONNECTS,
    "result_backend_max_retries": _RECONNECTS,
    "result_backend_base_sleep_between_retries_ms": _RECONNECTS,
    "result_backend_max_sleep_between_retries_ms": _RECONNECTS,
    "result_chord_join_timeout": "the parts of a chord are counted, not waited for",
    "result_chord_retry_interval": "the parts of a chord are counted, not polled",
    "task_remote_tracebacks": "RemoteError has the remote traceback as a note",
    "task_repr_maxlevels": "arguments in messages and logs are cut short",
    "worker_cancel_long_running_tasks_on_connection_loss": "a lost message is run again elsewhere",
    "worker_detect_quorum_queues": "delays and limits work on quorum queues, too",
    "worker_enable_prefetch_count_reduction": "a reconnect changes nothing in that",
    "worker_eta_task_limit": "what has an eta waits in the broker",
    "worker_lost_wait": "a child that died is known at once",
    "worker_pool_putlocks": "a pool takes no more than it can run",
    "worker_pool_restarts": "the pool can be restarted anyway",
    "worker_proc_alive_timeout": "an app may take a minute to import",
    "worker_timer": "there is one timer",
    "worker_timer_precision": "there is one timer",
    "worker_log_color": "nothing is coloured",
}
"""Name -> why it is not needed."""

REFUSED: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    "broker_transport": ((None,), "say it in broker_url, before ://"),
    "broker_host": ((None,), "say it in broker_url"),
    "broker_port": ((None,), "say it in broker_url"),
    "broker_user": ((None,), "say it in broker_url"),
    "broker_password": ((None,), "say it in broker_url"),
    "broker_vhost": ((None,), "say it in broker_url"),
    "broker_read_url": ((None,), "a worker has one broker; say it in broker_url"),
    "broker_write_url": ((None,), "a worker has one broker; say it in broker_url"),
    "broker_use_ssl": ((None, False), "say it in broker_url: amqps://, rediss://; see its options"),
    "broker_transport_options": (
        ({}, None),
        "say options in broker_url, after ?; a visibility timeout is not needed",
    ),
    "broker_failover_strategy": ((None, "round-robin"), "brokers are tried in the given order"),
    "broker_login_method": ((None, "AMQPLAIN", "PLAIN"), "say it in broker_url"),
    "enable_utc": ((True,), "times in messages are in UTC"),
    "result_serializer": (("json",), "results are JSON"),
    "result_accept_content": ((None, ["json"], ("json",)), "results are JSON"),
    "result_compression": ((None,), "results are not compressed"),
    "result_chord_expires": ((None,), "the count of a chord's parts is kept as long as results"),
    "result_backend_transport_options": (({}, None), "say options in result_backend, after ?"),
    "task_protocol": ((2,), "protocol 2 is written; 1 and 2 are read"),
    "task_default_delivery_mode": ((2, "persistent"), "messages are persistent"),
    "task_create_missing_queue_exchange_type": ((None, "direct"), "put the queue into task_queues"),
    "task_inherit_parent_priority": ((False,), "say priority= in the call"),
    "task_reject_on_worker_lost": (
        (None, True),
        "a task whose process died is run again, three times at most",
    ),
    "task_retry_on_worker_lost": (
        (None, False),
        "a task whose process died is run again, three times at most",
    ),
    "task_acks_on_failure_or_timeout": ((None, True), "raise Reject(requeue=True) in the task"),
    "task_acks_on_failure": ((None, True), "raise Reject(requeue=True) in the task"),
    "task_acks_on_timeout": ((None, True), "a task that ran too long has failed"),
    "task_allow_error_cb_on_chord_header": ((False,), "link errors to the parts themselves"),
    "task_store_eager_result": ((False,), "apply() returns its result, which is kept nowhere"),
    "task_send_sent_event": ((False,), _EVENTS),
    "worker_send_task_events": ((False,), _EVENTS),
    "worker_direct": ((False,), "give each worker a queue of its own: -Q"),
    "worker_agent": ((None,), "steps are what a worker is made of; see queue-core graph"),
    "worker_autoscaler": (
        ("celery.worker.autoscale:Autoscaler",),
        "the pool does not grow by itself; control pool_grow does that",
    ),
    "worker_consumer": (
        ("celery.worker.consumer:Consumer",),
        "steps are what a consumer is made of; see queue-core graph",
    ),
    "worker_deduplicate_successful_tasks": ((False,), "say unique_for= at the task"),
    "worker_disable_prefetch": ((False,), "say worker_prefetch = 1"),
    "worker_soft_shutdown_timeout": ((0, 0.0), "say worker_drain"),
    "worker_enable_soft_shutdown_on_idle": ((False,), "a worker that does nothing stops at once"),
    "worker_hijack_root_logger": ((True,), "the worker's log is for all loggers; " + _LOGS),
    "worker_log_format": ((None,), _LOGS),
    "worker_log_datefmt": ((None,), _LOGS),
    "worker_task_log_format": ((None,), _LOGS),
    "worker_task_log_datefmt": ((None,), _LOGS),
    "worker_redirect_stdouts": ((False,), "what a task prints goes where the worker's output goes"),
    "worker_redirect_stdouts_level": ((None, "WARNING"), "what a task prints is not logged"),
    "task_cls": ((None,), "say base= at the tasks"),
}
"""Name -> the values that are what happens here anyway, and what to do for others."""

FAMILIES: Final[Mapping[str, str]] = {
    "beat_": "periodic tasks are not here; let cron or celery beat send them",
    "event_": _EVENTS,
    "security_": "messages are not signed; use TLS, and users of the broker",
    "database_": "say result_backend = 'sqlite:///results.db' or another URL of a database",
    "redis_": "say it in result_backend: redis://user:password@host:port/db",
    "cache_": "results are kept in a broker with a key-value store: Redis, SQL, memory",
    **dict.fromkeys(
        (
            "mongodb_",
            "cassandra_",
            "elasticsearch_",
            "couchbase_",
            "arangodb_",
            "cosmosdbsql_",
            "azureblockblob_",
            "s3_",
            "gcs_",
        ),
        "results are kept in a broker with a key-value store: Redis, SQL, memory",
    ),
}
"""Prefix of celery's settings that are all refused -> why."""

_PREFIXES: Final = {
    "celery_": ("", "task_"),
    "celeryd_": ("worker_",),
    "celerybeat_": ("beat_",),
}


def spellings(name: str) -> Iterator[str]:
    """Yield what ``name`` may stand for, the likeliest first: a name of today in lower case.

    Celery's old names are upper case, mostly today's behind ``CELERY_``, ``CELERYD_`` or without
    the ``task_``; with ``namespace="CELERY"`` today's names stand behind ``CELERY_``.
    """
    lower = name.lower()
    if lower in IRREGULAR:
        yield IRREGULAR[lower]
    yield lower
    for prefix, instead in _PREFIXES.items():
        if lower.startswith(prefix):
            for other in instead:
                yield other + lower.removeprefix(prefix)


def known_name(name: str) -> str | None:
    """Return today's name of a setting of celery's or ours; None if there is none."""
    for candidate in spellings(name):
        if candidate in FIELDS or candidate in NEEDLESS or candidate in REFUSED:
            return candidate
        if any(candidate.startswith(prefix) for prefix in FAMILIES):
            return candidate
    return None


def nearest_name(name: str, *, cutoff: float = 0.75) -> str | None:
    """Return the known name that is most like a misspelt one, in its style; None: none is."""
    import difflib  # noqa: PLC0415 - late, as in `queue_core.nearest`

    candidates = list(dict.fromkeys(spellings(name)))
    best, score = None, cutoff
    for candidate in candidates:
        found = difflib.get_close_matches(candidate, _all_names(), n=1, cutoff=score)
        if found:
            best = found[0]
            score = difflib.SequenceMatcher(None, best, candidate).ratio()
    if best is None or not name.isupper():
        return best
    return best.upper() if best.startswith("broker_") else f"CELERY_{best.upper()}"


def refusal(name: str, value: object) -> str | None:
    """Return why a known setting cannot be honoured; None: it can, or there is no need to."""
    if name in REFUSED:
        accepted, reason = REFUSED[name]
        same = any(value == one and type(value) is type(one) for one in accepted)
        return None if same else reason
    if name in FIELDS or name in NEEDLESS or value in (None, {}, [], (), "", False):
        return None
    return next(why for prefix, why in FAMILIES.items() if name.startswith(prefix))


def why_needless(name: str) -> str:
    """Return why a known setting that was accepted changes nothing here."""
    return NEEDLESS.get(name, "it is so anyway")


def _all_names() -> Iterable[str]:
    return [*FIELDS, *NEEDLESS, *REFUSED]

"""The options of tasks: their names, how their values are read, and what celery's are called here.

`TaskOptions` are the attributes of `queue_core.worker.task.Task` that ``@app.task`` and
``task_annotations`` may set. An option of celery's that has no place here is accepted where its
value is what happens anyway, and refused with what to do instead where it is not. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, TypedDict

import msgspec

from queue_core import ConfigError, Queue
from queue_core.worker.celery_settings import REFUSED
from queue_core.worker.rates import per_second
from queue_core.worker.suggestions import did_you_mean

FROM_SETTINGS: Final[Mapping[str, str]] = {
    "rate_limit": "task_default_rate_limit",
    "acks_late": "task_acks_late",
    "ignore_result": "task_ignore_result",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
    "track_started": "task_track_started",
}
"""Option -> the setting that says it for tasks that do not."""


class TaskOptions(TypedDict, total=False):
    """The options of a task; see the attributes of `queue_core.worker.task.Task`."""

    queue: Queue | str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    serializer: str | None
    compression: str | None
    expires: float | None
    rate_limit: str | float | None
    time_limit: float | None
    soft_time_limit: float | None
    max_retries: int | None
    default_retry_delay: float
    autoretry_for: Sequence[type[BaseException]]
    dont_autoretry_for: Sequence[type[BaseException]]
    retry_kwargs: Mapping[str, Any]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    acks_late: bool
    ignore_result: bool
    store_errors_even_if_ignored: bool
    track_started: bool
    unique_for: float | None
    strategy: str | None
    request_class: str | type[Any] | None
    throws: Sequence[type[BaseException]]
    typing: bool


NAMES: Final = frozenset(TaskOptions.__annotations__)
HOOKS: Final = frozenset({"before_start", "on_success", "on_failure", "on_retry", "after_return"})
"""The methods of a task that ``@app.task`` and annotations may replace by functions."""

_Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1e10)]
_KINDS: Final[Mapping[str, tuple[Any, str]]] = {
    "queue": (Queue | Annotated[str, msgspec.Meta(min_length=1)] | None, "a name or a Queue"),
    **dict.fromkeys(
        ("exchange", "routing_key", "serializer", "compression", "strategy"), (str | None, "a name")
    ),
    "priority": (Annotated[int, msgspec.Meta(ge=0, le=9)] | None, "a whole number from 0 to 9"),
    "expires": (_Seconds | datetime | None, "a number of seconds, or a datetime"),
    **dict.fromkeys(
        ("time_limit", "soft_time_limit", "unique_for"), (_Seconds | None, "a number of seconds")
    ),
    **dict.fromkeys(
        ("default_retry_delay", "retry_backoff_max"), (_Seconds, "a number of seconds")
    ),
    "retry_backoff": (bool | _Seconds, "True, False, or a number of seconds"),
    "max_retries": (Annotated[int, msgspec.Meta(ge=0)] | None, "a whole number, or None"),
    "ignore_result": (bool | None, "True or False"),
    **dict.fromkeys(
        ("retry_jitter", "acks_late", "store_errors_even_if_ignored", "track_started", "typing"),
        (bool, "True or False"),
    ),
}
"""Option -> what its value is, for msgspec and for people; the others have rules of their own."""

_ERRORS: Final = frozenset({"autoretry_for", "dont_autoretry_for", "throws"})
_RETRY: Final = {"max_retries": "max_retries", "countdown": "default_retry_delay"}
"""What ``retry_kwargs`` may say -> the option that has such values."""
_PREFIXED: Final = (
    "reject_on_worker_lost",
    "retry_on_worker_lost",
    "acks_on_failure_or_timeout",
    "acks_on_failure",
    "acks_on_timeout",
    "store_eager_result",
)
CELERYS: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    **{name: REFUSED[f"task_{name}"] for name in _PREFIXED},
    "Request": ((None,), "say request_class='module:Class'"),
    "Strategy": ((None,), "say strategy='module:function'"),
    "send_events": ((False, None), "there are no events"),
    "trail": ((True,), "which task sent which is always known"),
    "backend": ((None,), "say result_backend in the settings, or ignore_result=True"),
    "lazy": ((True, False), ""),
    "shared": ((True, False), ""),
    "pydantic": ((False,), "validate the arguments in the task"),
}
"""Option of celery's -> the values that are what happens here anyway, and what to do for others."""


def read_option(option: str, value: Any) -> Any:
    """Return the value of an option as tasks have it; one of celery's that changes nothing is None.

    Raises:
        ConfigError: there is no such option, with the nearest one, or the value is wrong.
    """
    if option in CELERYS:
        accepted, instead = CELERYS[option]
        if value not in accepted:
            raise ConfigError(f"{option} = {value!r:.60} cannot be honoured; {instead}")
        return None
    if option in HOOKS:
        if not callable(value):
            raise ConfigError(f"{option} is a function, not {value!r:.60}")
        return value
    if option not in NAMES:
        known = sorted({*NAMES, *HOOKS})
        instead = did_you_mean(option, known, f"it has {', '.join(known)}")
        raise ConfigError(f"a task has no option {option!r}; {instead}")
    if option == "rate_limit":
        per_second(value)
    if option == "retry_kwargs":
        _check_retry(value)
    if option == "request_class" and not isinstance(value, type | str | None):
        raise ConfigError(f"request_class is a class, or its name, not {value!r:.60}")
    if option in _ERRORS:
        return _errors(option, value)
    if option in _KINDS:
        _check_kind(option, value)
    return value


def _check_kind(option: str, value: Any, label: str = "") -> None:
    kind, words = _KINDS[option]
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise ConfigError(f"{label or option} is {words}, not {value!r:.60}") from None


def _errors(option: str, value: Any) -> tuple[type[BaseException], ...]:
    several = isinstance(value, Iterable) and not isinstance(value, type)
    found = tuple(value) if several else (value,)
    if not all(isinstance(one, type) and issubclass(one, BaseException) for one in found):
        raise ConfigError(f"{option} is a list of exception classes, not {value!r:.60}")
    return found


def _check_retry(value: Any) -> None:
    if not isinstance(value, Mapping) or not set(value) <= _RETRY.keys():
        raise ConfigError(
            f"retry_kwargs is a dict of max_retries and countdown, not {value!r:.60}; for other "
            "things call self.retry() in the task"
        )
    for option, said in value.items():
        _check_kind(_RETRY[option], said, f"retry_kwargs: {option}")

"""The message that a running task is sent again as: the same call, later or with another task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any

from queue_core import Backoff, ConfigError, TooLarge, UsageError, copy_headers
from queue_core.worker.endings import Retry
from queue_core.worker.message_template import MAX_PRIORITY
from queue_core.worker.protocol import STANDARD_HEADERS
from queue_core.worker.request import Request
from queue_core.worker.signature import GROUP, Signature, as_signature, join
from queue_core.worker.timestamps import seconds_to_wait, seconds_until, utcnow
from queue_core.worker.unfolding import Part, attach, freeze

if TYPE_CHECKING:
    from queue_core.worker.task import Task


def again(
    request: Request,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    error: BaseException | None,
    zone: tzinfo = UTC,
) -> Retry:
    """Return the retry of the run: the same id and followers, one more in ``retries``.

    An ``eta`` that says no zone is in ``zone``. What another program sent and we would not is left
    out: a retry is no reason to fail.
    """
    call = request.call
    expires = call.expires if seconds_until(call.expires, "expires", zone) is not None else None
    given = {name: value for name, value in options.items() if value is not None}
    delay = seconds_to_wait(given, zone, utcnow())
    signature: Signature[Any] = Signature(
        call.name,
        list(call.args if args is None else args),
        dict(call.kwargs if kwargs is None else kwargs),
        {
            "queue": request.queue or None,
            "headers": {**_own_headers(request), **given.pop("headers", {})},
            "priority": min(request.priority, MAX_PRIORITY),
            "task_id": call.id,
            "retries": call.retries + 1,
            "root_id": call.root_id,
            "parent_id": call.parent_id,
            "group_id": call.group,
            "group_index": call.group_index,
            "link": call.embed.callbacks,
            "link_error": call.embed.errbacks,
            "chain": call.embed.chain,
            "chord": call.embed.chord,
            "failed": call.embed.failed,
            "expires": expires,
            "time_limit": call.hard_limit,
            "soft_time_limit": call.soft_limit,
            "ignore_result": call.ignore_result or None,
            "shadow": call.shadow,
            "reply_to": call.reply_to,
            "replaced_task_nesting": call.replaced_task_nesting,
            "stamps": call.stamps,
            "stamped_headers": call.stamped_headers,
            **given,
        },
    )
    return Retry(signature, delay, error)


def _own_headers(request: Request) -> dict[str, Any]:
    """Return the headers that the sender added to those of the protocol and of brokers."""
    own = {
        name: value
        for name, value in request.headers.items()
        if name not in STANDARD_HEADERS
        and not name.startswith("x-")
        and _can_be_sent({name: value})
    }
    return own if _can_be_sent(own) else {}


def _can_be_sent(headers: Mapping[str, Any]) -> bool:
    try:
        copy_headers(headers)
    except (ConfigError, TooLarge):
        return False
    return True


def retry_by_options(task: Task[..., Any], request: Request, error: BaseException) -> Retry | None:
    """Return how to run again after ``error`` if the options of the task say so; None: it failed.

    ``retry_kwargs`` goes before ``max_retries`` and ``default_retry_delay``, and ``retry_backoff``
    before all pauses.
    """
    if not isinstance(error, tuple(task.autoretry_for)) or isinstance(
        error, tuple(task.dont_autoretry_for)
    ):
        return None
    limit = task.retry_kwargs.get("max_retries", task.max_retries)
    if limit is not None and request.retries >= limit:
        return None
    delay = task.retry_kwargs.get("countdown", task.default_retry_delay)
    if task.retry_backoff:
        backoff = Backoff(float(task.retry_backoff), task.retry_backoff_max)
        delay = (backoff.delay if task.retry_jitter else backoff.ceiling)(request.retries)
    return again(request, None, None, {"countdown": delay}, error)


def replacement(request: Request, signature: Signature[Any]) -> Signature[Any]:
    """Return ``signature`` with the id of the run, and with all that follows the run behind it.

    Raises:
        UsageError: it is a group, which has no single result; ``group | task`` has.
    """
    if signature.task == GROUP:
        raise UsageError("a group cannot replace a task; use a chord: group(...) | task.s()")
    call = request.call
    new = signature.clone(task_id=call.id)
    for callback in call.embed.callbacks or ():
        new.link(as_signature(callback))
    for errback in call.embed.errbacks or ():
        new.link_error(as_signature(errback))
    if call.group is not None:
        new = attach(new, Part(call.group, call.group_index, call.embed.chord))
    new.options["replaced_task_nesting"] = call.replaced_task_nesting + 1
    whole = join([new, *(as_signature(step) for step in reversed(call.embed.chain or []))])
    return freeze(whole, reply_to=call.reply_to)[0]

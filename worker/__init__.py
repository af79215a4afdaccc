"""Tasks and the worker that runs them.

Built on nothing but the facade `queue_core`, so that it works on every broker that the facade works
on, and speaking celery's message protocol, so that its programs can work beside.

The names are loaded when they are used: a command such as ``queue-core inspect`` lives in this
package, needs none of them, and shall be quick.

Where things stand, along the way of a task:

- Defined: ``app``, ``task``, ``declaring``, ``shared``, ``current``, ``options``, ``parameters``,
  ``hooks``, ``builtin``; by settings: ``settings``, ``configuration``, ``app_settings``,
  ``celery_settings``, ``annotations``, ``variables``.
- Called: ``signature``, ``canvas``; which tasks to send now is ``unfolding``.
- Sent: ``routes`` and ``rules`` (where to, and how), ``composing`` with ``message_template``,
  ``protocol`` and ``envelopes`` (the message), ``sending``, ``patience``, ``unique``; or run here
  and now: ``eager``.
- Taken: ``runner`` is the worker, with ``flags``, ``signals``, ``guarding`` and ``timer``, made of
  steps (``blueprint``, ``steps``); ``consumer`` takes messages; ``messages``, ``delivery``,
  ``strategy``, ``in_flight``, ``rates``, ``revoked``: what becomes of each.
- Run: ``pools`` give it to a process or thread; there ``trace`` leads from the message to an
  ``outcome``, and ``running`` through the function, with ``request``, ``endings``, ``limits``,
  ``failure`` and, for coroutines, ``loops``.
- Ended: ``settler`` acks; ``sequel`` is what goes with the ack, made by ``following``,
  ``failure_effects`` and ``retrying``; ``dead_letters``; ``results`` are kept and waited for.
- Watched: ``control`` (remote commands), ``cli``, ``logs``, ``banner``, ``demo``.

Small things that many use: ``locate`` and ``absent`` (finding the app), ``suggestions``,
``timestamps``, ``units``, ``wake_pipe``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queue_core.worker.app import App
    from queue_core.worker.canvas import chain, chord, group
    from queue_core.worker.endings import Ignore, MaxRetriesExceeded, Reject, Retry
    from queue_core.worker.limits import SoftTimeLimitExceeded, TaskTerminated
    from queue_core.worker.request import FailedRun, Request
    from queue_core.worker.results.groups import GroupResult
    from queue_core.worker.results.result import AsyncResult
    from queue_core.worker.shared import shared_task
    from queue_core.worker.signature import Signature
    from queue_core.worker.task import Task

__all__ = [
    "App",
    "AsyncResult",
    "FailedRun",
    "GroupResult",
    "Ignore",
    "MaxRetriesExceeded",
    "Reject",
    "Request",
    "Retry",
    "Signature",
    "SoftTimeLimitExceeded",
    "Task",
    "TaskTerminated",
    "chain",
    "chord",
    "group",
    "shared_task",
]

_MODULES = {
    "App": "app",
    "AsyncResult": "results.result",
    "FailedRun": "request",
    "GroupResult": "results.groups",
    "Ignore": "endings",
    "MaxRetriesExceeded": "endings",
    "Reject": "endings",
    "Request": "request",
    "Retry": "endings",
    "Signature": "signature",
    "SoftTimeLimitExceeded": "limits",
    "Task": "task",
    "TaskTerminated": "limits",
    "chain": "canvas",
    "chord": "canvas",
    "group": "canvas",
    "shared_task": "shared",
}


def __getattr__(name: str) -> Any:
    """Load one of ``__all__`` at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

"""Tasks and the worker that runs them.

Built on nothing but the facade `queue_core`, so that it works on every broker that the facade works
on, and speaking celery's message protocol, so that its programs can work beside.
"""

from queue_core.worker.app import App
from queue_core.worker.canvas import chain, chord, group
from queue_core.worker.endings import Ignore, MaxRetriesExceeded, Reject, Retry
from queue_core.worker.limits import SoftTimeLimitExceeded, TaskTerminated
from queue_core.worker.request import FailedRun, Request
from queue_core.worker.results.result import AsyncResult, GroupResult
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

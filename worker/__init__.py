"""Tasks and the worker that runs them.

Built on nothing but the facade `queue_core`, so that it works on every broker that the facade works
on, and speaking celery's message protocol, so that its programs can work beside.
"""

from queue_core.worker.app import App
from queue_core.worker.request import Request
from queue_core.worker.results.result import AsyncResult
from queue_core.worker.task import Task

__all__ = ["App", "AsyncResult", "Request", "Task"]

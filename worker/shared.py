"""``@shared_task``: a task of a module that does not know the app.

Every app of the process knows it; it is sent by whichever is the current one.
"""

from __future__ import annotations

from typing import Any

from queue_core.worker.current import latest_app, shared
from queue_core.worker.declaring import Declare, define, write_down
from queue_core.worker.task import Task


def _define(*args: Any, **named: Any) -> Task[..., Any]:
    task = define(*args, **named)
    write_down(shared, task)
    app = latest_app()
    if app is not None:
        app.adopt(task)
    return task


shared_task = Declare(_define)
"""Make a task that belongs to no app; takes what `App.task` takes, and raises what it raises."""

"""Tasks that divide, and what happens when that fails: an error link, and a base class with a hook.

Two workers, each with a queue of its own, on any broker's URL::

    cd examples
    export QUEUE_CORE_URL=sqlite:///divide.db
    queue-core worker -A divide_tasks:app -Q divide &
    queue-core worker -A divide_tasks:app -Q error &
    python divide_client.py
"""

from typing import Any

from queue_core.worker import App, Task

app = App("divide_tasks")


class DebugTask(Task[..., Any]):
    """Shows the arguments of what failed."""

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: list[Any],
        kwargs: dict[str, Any],
        einfo: str,
    ) -> None:
        print(f"on_failure: {exc!r}, the arguments were {self.request.args}", flush=True)


@app.task(name="divide", queue="divide", base=DebugTask)
def divide(a: float, b: float) -> float:
    """Divide; the second argument may be zero, but should not."""
    return a / b


@app.task(name="error_handler", queue="error")
def error_handler(task_id: str) -> None:
    """Say what is known of a task that failed: its state, its error, and its arguments."""
    result = app.AsyncResult(task_id)
    print(f"error_handler: {task_id} {result.state} {result.info!r} {result.args}", flush=True)

"""Tasks with links, retries and hooks; worker processes import this module."""

import asyncio
import os
import time
from typing import Any

from queue_core.worker import App, Reject, Task, group

app = App("canvas jobs", backend=os.environ.get("JOBS_BACKEND") or None)


@app.task(name="canvas.add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="canvas.add_at_most_once", acks_late=False)
def add_at_most_once(a: int, b: int) -> int:
    return a + b


@app.task(name="canvas.later")
async def later(a: int) -> list[Any]:
    await asyncio.sleep(0.01)
    return [later.request.id, a]


@app.task(name="canvas.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="canvas.divide")
def divide(a: float, b: float) -> float:
    return a / b


@app.task(name="canvas.note")
def note(text: Any, path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{text}\n")


@app.task(name="canvas.error_handler")
def error_handler(task_id: str, path: str) -> None:
    result = app.AsyncResult(task_id)
    note(f"{task_id} {result.state} {result.info} {result.args} {result.kwargs}", path)


@app.task(name="canvas.error_handler_of_three")
def error_handler_of_three(request: Any, exc: Exception, traceback: str, path: str) -> None:
    last = traceback.strip().splitlines()[-1]
    note(f"{request.id} {exc} {request.args} {last}", path)


@app.task(name="canvas.flaky", bind=True, max_retries=3)
def flaky(self: Task[..., list[Any]], succeeds_after: int) -> list[Any]:
    if self.request.retries < succeeds_after:
        raise self.retry(exc=ConnectionError("away"), countdown=0.05)
    return [self.request.id, self.request.retries]


class DebugTask(Task[..., Any]):
    """Notes the arguments of what failed."""

    abstract = True

    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: list[Any],
        kwargs: dict[str, Any],
        einfo: str,
    ) -> None:
        note(f"{task_id} {exc} {self.request.args[:1]}", self.request.args[-1])


@app.task(name="canvas.fails", base=DebugTask)
def fails(number: int, path: str) -> None:
    raise ValueError(f"not {number}")


@app.task(name="canvas.reject")
def reject(requeue: bool) -> None:
    raise Reject("no use", requeue=requeue and not reject.request.redelivered)


@app.task(name="canvas.sleep")
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.task(name="canvas.die")
def die() -> None:
    os.kill(os.getpid(), 9)


@app.task(name="canvas.family", bind=True)
def family(self: Task[..., list[Any]], queue: str) -> list[Any]:
    child = whose.apply_async(queue=queue)
    return [self.request.id, self.request.root_id, child.id]


@app.task(name="canvas.whose", bind=True)
def whose(self: Task[..., list[Any]]) -> list[Any]:
    return [self.request.id, self.request.parent_id, self.request.root_id]


@app.task(name="canvas.fan_out", bind=True)
def fan_out(self: Task[..., int], numbers: list[int], queue: str) -> None:
    """Let a chord do the work."""
    self.replace((group(add.s(n, n) for n in numbers) | total.s()).set(queue=queue))

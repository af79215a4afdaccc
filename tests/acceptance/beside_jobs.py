"""The tasks that our worker runs beside celery's; ``celery_side/beside.py`` has the same names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from queue_core import Queue
from queue_core.worker import App, MaxRetriesExceeded, Task, group

app = App(
    "beside",
    backend="rpc://",
    default_queue=os.environ.get("HOME_QUEUE", "celery"),
    queues=[Queue(os.environ.get("RANKED_QUEUE", "ranked"), max_priority=9)],
)
SIDE = "ours"


def write(path: str, *what: object) -> None:
    with open(path, "a") as file:
        file.write(json.dumps([SIDE, *what]) + "\n")


@app.task(name="beside.add")
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task(name="beside.echo")
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [args, kwargs]


@app.task(name="beside.kinds")
def kinds(*args: Any) -> list[Any]:
    return [[type(arg).__name__ for arg in args], *args]


@app.task(name="beside.fail")
def fail(text: str) -> None:
    raise ValueError(text, 7)


@app.task(name="beside.side")
def side(seconds: float = 0) -> str:
    time.sleep(seconds)
    return SIDE


@app.task(name="beside.flaky", bind=True, max_retries=2)
def flaky(self: Task[..., Any], times: int) -> list[Any]:
    if self.request.retries < times:
        raise self.retry(exc=OSError("not yet"), countdown=0.1)
    return [SIDE, self.request.id, self.request.retries]


@app.task(name="beside.about", bind=True)
def about(self: Task[..., Any], *args: Any) -> dict[str, Any]:
    request = self.request
    names = "id root_id parent_id group group_index reply_to correlation_id stamps"
    said = {name: getattr(request, name) for name in names.split()}
    said["timelimit"] = list(request.timelimit)
    said["mine"] = request.headers.get("mine")
    said["priority"] = request.delivery_info["priority"]
    return {"side": SIDE, **said}


@app.task(name="beside.family")
def family() -> str:
    """Start a child of its own."""
    return add.delay(1, 1).id


@app.task(name="beside.replaced", bind=True)
def replaced(self: Task[..., Any], x: int) -> Any:
    return self.replace(add.s(x, 1))


@app.task(name="beside.note")
def note(path: str, *args: Any) -> None:
    write(path, *args)


@app.task(name="beside.note_last")
def note_last(*args: Any) -> None:
    """As `note`, for a link: what it is given comes first."""
    *given, path = args
    write(path, *given)


@app.task(name="beside.old_errback")
def old_errback(failed_id: str, path: str) -> None:
    write(path, failed_id)


@app.task(name="beside.new_errback")
def new_errback(request: Any, error: Exception, trace: str, path: str) -> None:
    write(path, request.id, request.args, type(error).__name__, str(error), trace.strip()[-8:])


@app.task(name="beside.family_of_two")
def family_of_two() -> list[str]:
    """Start a group."""
    return [one.id for one in group(add.s(1, 1), add.s(2, 2)).delay().results]


@app.task(name="beside.progress", bind=True)
def progress(self: Task[..., Any], path: str) -> str:
    """Say how far it is, and wait."""
    self.update_state(state="PROGRESS", meta={"done": 3, "of": SIDE})
    return hold(path)


@app.task(name="beside.give_up")
def give_up() -> None:
    raise MaxRetriesExceeded("it was often enough")


@app.task(name="beside.hold", track_started=True)
def hold(path: str) -> str:
    Path(path).touch()
    while not Path(f"{path}.go").exists():
        time.sleep(0.01)
    return SIDE

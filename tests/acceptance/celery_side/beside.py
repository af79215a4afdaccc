"""An app of celery's with the tasks of ``beside_jobs``, and a client that does what it is told.

``python beside.py`` reads JSON strings, each some Python, one a line; it runs them with this app
and prints the value of the last expression as JSON, or what was raised.
"""

import ast
import json
import os
import sys
import time
from pathlib import Path

from celery import Celery, chain, chord, group, signature  # noqa: F401 - for what it is told
from celery.result import AsyncResult  # noqa: F401

app = Celery("beside", broker=os.environ["BROKER"], backend="rpc://")
app.conf.update(
    task_default_queue=os.environ["HOME_QUEUE"],
    worker_prefetch_multiplier=1,
    task_acks_late=True,
)
SIDE = "theirs"


def job(**options):
    def register(function):
        return app.task(name=f"beside.{function.__name__}", **options)(function)

    return register


def write(path, *what):
    with open(path, "a") as file:
        file.write(json.dumps([SIDE, *what]) + "\n")


@job()
def add(x, y):
    return x + y


@job()
def echo(*args, **kwargs):
    return [args, kwargs]


@job()
def kinds(*args):
    return [[type(arg).__name__ for arg in args], *args]


@job()
def fail(text):
    raise ValueError(text, 7)


@job()
def side(seconds=0):
    time.sleep(seconds)
    return SIDE


@job(bind=True, max_retries=2)
def flaky(self, times):
    if self.request.retries < times:
        raise self.retry(exc=OSError("not yet"), countdown=0.1)
    return [SIDE, self.request.id, self.request.retries]


@job(bind=True)
def about(self, *args):
    request = self.request
    names = "id root_id parent_id group group_index reply_to correlation_id stamps"
    said = {name: getattr(request, name) for name in names.split()}
    said["timelimit"] = list(request.timelimit)
    said["mine"] = (request.headers or {}).get("mine")
    said["priority"] = request.delivery_info["priority"]
    return {"side": SIDE, **said}


@job(bind=True)
def request_says(self):
    """Everything that a message can say of a run."""
    names = (
        "lang shadow eta expires group group_index retries timelimit parent_id argsrepr kwargsrepr "
        "ignore_result replaced_task_nesting stamped_headers stamps headers"
    )
    return {name: getattr(self.request, name) for name in names.split()}


@job()
def family():
    """Start a child of its own."""
    return add.delay(1, 1).id


@job(bind=True)
def replaced(self, x):
    return self.replace(add.s(x, 1))


@job()
def note(path, *args):
    write(path, *args)


@job()
def note_last(*args):
    """As `note`, for a link: what it is given comes first."""
    *given, path = args
    write(path, *given)


@job()
def old_errback(failed_id, path):
    write(path, failed_id)


@job()
def new_errback(request, error, trace, path):
    write(
        path,
        request.id,
        list(request.args),
        type(error).__name__,
        str(error),
        str(trace).strip()[-8:],
    )


@job()
def family_of_two():
    """Start a group."""
    return [one.id for one in group(add.s(1, 1), add.s(2, 2))().results]


@job(bind=True)
def progress(self, path):
    """Say how far it is, and wait."""
    self.update_state(state="PROGRESS", meta={"done": 3, "of": SIDE})
    return hold(path)


@job(track_started=True)
def hold(path):
    Path(path).touch()
    while not Path(f"{path}.go").exists():
        time.sleep(0.01)
    return SIDE


def elsewhere(name, *args):
    """Send a task from an app of its own: by rpc celery sees states only until it gets a result."""
    other = Celery("elsewhere", broker=os.environ["BROKER"], backend="rpc://")
    return other.send_task(name, args, queue=os.environ["HOME_QUEUE"])


def obey(source):
    """Run ``source``; return the value of its last expression."""
    parsed = ast.parse(source)
    last = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
    exec(compile(parsed, "told", "exec"), globals())
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "told", "eval"), globals())


def main():
    for line in sys.stdin:
        try:
            said = {"value": obey(json.loads(line))}
        except Exception as error:
            said = {"raised": [type(error).__module__, type(error).__name__, str(error)]}
        print(json.dumps(said, default=repr), flush=True)


if __name__ == "__main__":
    main()

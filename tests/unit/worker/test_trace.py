"""Running one job: every message and every task ends in an outcome."""

import json

import msgspec
import pytest

from queue_core import Properties
from queue_core.emulation import stored
from queue_core.worker import App, Reject
from queue_core.worker.outcome import Done, Failed, Job, Rejected, Retried
from queue_core.worker.pools import frames
from queue_core.worker.protocol import Call, Embed, task_body, task_headers
from queue_core.worker.results.wire import read_result
from queue_core.worker.trace import run_job

app = App("trace")


@app.task(name="add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="fail")
def fail() -> None:
    raise LookupError("nothing", 7)


@app.task(name="leave")
def leave() -> None:
    raise SystemExit(2)


@app.task(name="full")
def full() -> None:
    raise MemoryError


@app.task(name="odd")
def odd() -> object:
    return object()


@app.task(name="who")
def who() -> list[object]:
    request = who.request
    return [request.id, request.queue, request.attempts, request.redelivered]


def job(name="add", args=(), kwargs=None, **changes):
    call = Call(name, "id-1", list(args), kwargs or {}, **changes.pop("call", {}))
    content = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": task_headers(call, origin="o"),
        "correlation_id": "id-1",
    }
    content |= {field: changes.pop(field) for field in content if field in changes}
    fields = {
        "ticket": 1,
        "name": name,
        "queue": "q",
        "attempts": 2,
        "redelivered": True,
        "raw": stored.encode("", "q", Properties(**content)),
        "reader": stored.READER.home,
        "body": json.dumps(task_body(call)).encode(),
    }
    return Job(**(fields | changes))


def reply(outcome):
    return read_result(json.loads(outcome.reply))


def test_a_value_is_done():
    outcome, fatal = run_job(app, job(args=(2, 3)))
    assert isinstance(outcome, Done) and not fatal
    assert reply(outcome).value == 5 and reply(outcome).task_id == "id-1"


def test_an_exception_is_a_failure_as_data_that_shows_the_users_frames_only():
    outcome, fatal = run_job(app, job("fail"))
    assert isinstance(outcome, Failed) and not fatal
    assert outcome.error == "LookupError: nothing, 7"
    failed = reply(outcome).failure
    assert failed.arguments == ["nothing", 7]
    assert "in fail" in failed.trace and "trace.py" not in failed.trace.replace("test_trace.py", "")


@pytest.mark.parametrize(("name", "kind"), [("leave", "SystemExit"), ("full", "MemoryError")])
def test_a_task_that_would_end_the_process_fails_and_asks_for_a_fresh_one(name, kind):
    outcome, fatal = run_job(app, job(name))
    assert isinstance(outcome, Failed) and fatal
    assert reply(outcome).failure.type_name == kind


@app.task(name="later")
def later() -> None:
    raise later.retry(countdown=1)


@pytest.mark.parametrize(
    ("expires", "priority"), [("soon", 0), ("9999-99-99T00:00:00", 9), (None, 255)]
)
def test_a_retry_carries_on_whatever_another_program_sent(expires, priority):
    raw = job("later", call={"expires": expires}).raw
    properties = stored.READER.properties(raw)
    foreign = msgspec.structs.replace(properties, priority=priority)
    outcome, _ = run_job(app, job("later", raw=stored.encode("", "q", foreign)))
    assert isinstance(outcome, Retried)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Closed(Exception):
    @property
    def args(self) -> tuple[object, ...]:  # type: ignore[override]
        raise LookupError


@app.task(name="mute", autoretry_for=[Mute], max_retries=1)
def mute() -> None:
    raise Mute


@app.task(name="closed")
def closed() -> None:
    raise Closed


@app.task(name="half")
def half() -> None:
    raise ValueError("name-\udc80")


@app.task(name="refuse")
def refuse() -> None:
    raise Reject("name-\udc80")


@app.task(name="tell")
def tell(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("name", ["mute", "closed", "half", "refuse"])
def test_what_an_exception_cannot_say_is_an_outcome_that_can_be_sent(name):
    outcome, fatal = run_job(app, job(name))
    assert isinstance(outcome, Retried if name == "mute" else Rejected | Failed) and not fatal
    assert frames.pack(outcome)


@pytest.mark.parametrize("options", [{"queue": 7}, {"priority": "high"}])
def test_an_error_link_that_is_damaged_keeps_no_other_from_being_sent(options):
    embed = Embed(
        errbacks=[{"task": "x", "options": options}, app.signature("alarm").as_wire()],
        chain=[app.signature("add", task_id="id-2").as_wire()],
    )
    outcome, _ = run_job(app, job("fail", call={"embed": embed}))
    assert isinstance(outcome, Failed)
    assert [letter.publication.properties.headers["task"] for letter in outcome.letters] == [
        "alarm"
    ]
    assert [one.task_id for one in outcome.others] == ["id-2"]


def test_a_failure_that_has_no_room_in_an_error_link_is_cut():
    embed = Embed(errbacks=[app.signature("alarm").as_wire()])
    outcome, _ = run_job(app, job("tell", ("x" * 9_000_000,), call={"embed": embed}))
    assert isinstance(outcome, Failed)
    (letter,) = outcome.letters
    assert len(letter.publication.body) < 20_000


def test_a_result_that_cannot_be_sent_is_a_failure():
    outcome, _ = run_job(app, job("odd"))
    assert isinstance(outcome, Failed)
    assert reply(outcome).failure.type_name == "EncodeError"


def test_arguments_that_do_not_fit_are_a_failure():
    outcome, _ = run_job(app, job(args=(1,)))
    assert reply(outcome).failure.type_name == "TypeError"


def test_an_unknown_task_is_rejected_with_the_nearest_name():
    outcome, _ = run_job(app, job("ad"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "there is no task 'ad'; did you mean 'add'?"
    assert outcome.type_name == "NotRegistered"


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"{"},
        {"body": b"[1]"},
        {"content_type": "application/x-python-serialize"},
        {"content_type": "application/x-unknown"},
        {"content_encoding": "no-such-encoding"},
        {"headers": {"task": "add", "id": "id-1", "compression": "no-such"}},
        {"body": b"[" * 5000 + b"]" * 5000},
    ],
)
def test_an_unreadable_message_is_rejected(changes):
    outcome, fatal = run_job(app, job(args=(1, 2), **changes))
    assert isinstance(outcome, Rejected) and not fatal


def test_a_message_without_any_id_is_rejected():
    outcome, _ = run_job(app, job(headers={}, correlation_id=None))
    assert isinstance(outcome, Rejected)


def test_a_task_can_ask_what_it_runs_for():
    outcome, _ = run_job(app, job("who"))
    assert reply(outcome).value == ["id-1", "q", 2, True]
    assert app.request is None


@app.task(name="echo_of")
def echo_of(size: int) -> str:
    return "x" * size


small = App("small", settings={"result_max_size": 2000})


@small.task(name="echo")
def echo(text: str, size: int = 0) -> str:
    if size < 0:
        raise ValueError(text)
    return "x" * size


def test_a_result_that_is_too_large_is_a_failure_of_its_own_type():
    outcome, _ = run_job(small, job("echo", ("a", 3000)))
    assert isinstance(outcome, Failed)
    result = read_result(json.loads(outcome.reply))
    assert result.failure.type_name == "TooLarge" and "result_max_size" in result.failure.text
    assert result.args == ["a", 3000] and len(outcome.reply) <= 2000


def test_a_result_that_no_message_can_carry_is_the_same_failure():
    outcome, _ = run_job(app, job("echo_of", (17_000_000,)))
    result = read_result(json.loads(outcome.reply))
    assert result.failure.type_name == "TooLarge" and "result_max_size" in result.failure.text


def test_arguments_that_are_too_large_to_be_told_are_left_out():
    outcome, _ = run_job(small, job("echo", ("a" * 3000, 3)))
    assert isinstance(outcome, Done)
    result = read_result(json.loads(outcome.reply))
    assert (result.value, result.args) == ("xxx", None)


def test_a_failure_that_is_too_large_is_cut():
    outcome, _ = run_job(small, job("echo", ("a" * 30_000, -1)))
    assert isinstance(outcome, Failed)
    result = read_result(json.loads(outcome.reply))
    assert result.failure.type_name == "ValueError" and len(result.failure.text) <= 1000
    assert result.args is None and len(outcome.reply) < 15_000

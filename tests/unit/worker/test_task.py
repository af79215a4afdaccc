"""Tasks as their authors see them: options, hooks, retries, error links. No broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from queue_core import (
    ConfigError,
    DecodeError,
    MessageError,
    Properties,
    RemoteError,
    TooLarge,
    UsageError,
)
from queue_core.emulation import stored
from queue_core.worker import (
    App,
    Ignore,
    MaxRetriesExceeded,
    Reject,
    Request,
    Retry,
    Task,
    chain,
    group,
    shared_task,
)
from queue_core.worker.current import make_current, shared
from queue_core.worker.failure import Failure
from queue_core.worker.outcome import Done, Failed, Job, Rejected, Retried, Skipped
from queue_core.worker.protocol import Call, Embed, read_call, task_body, task_headers
from queue_core.worker.request import AsCurrent, failed_run
from queue_core.worker.results.wire import read_result
from queue_core.worker.signature import Signature
from queue_core.worker.trace import run_job

app = App("tasks", broker="memory://tasks")
heard: list[tuple[object, ...]] = []


class Telling(Task):
    """Notes what happens to its tasks."""

    max_retries = 1

    def before_start(self, task_id, args, kwargs):
        heard.append(("before_start", task_id, args, kwargs))

    def on_success(self, retval, task_id, args, kwargs):
        heard.append(("on_success", retval, self.request.args))

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        heard.append(("on_failure", repr(exc), self.request.args, einfo.splitlines()[-1]))

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        heard.append(("on_retry", repr(exc)))

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        heard.append(("after_return", status))


@app.task(base=Telling, name="divide")
def divide(a: float, b: float) -> float:
    return a / b


@app.task(base=Telling, name="flaky", bind=True)
def flaky(self: Task, delay: float) -> str:
    try:
        raise ConnectionError("away")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=delay) from None


@app.task(name="auto", autoretry_for=[OSError], dont_autoretry_for=[FileNotFoundError])
def auto(missing: bool) -> None:
    raise FileNotFoundError("x") if missing else ConnectionError("y")


@pytest.fixture(autouse=True)
def silence():
    heard.clear()


def run(name, *args, embed=None, headers=None, **fields):
    """Run a job as a worker does; return its outcome."""
    call = Call(name, "id-1", list(args), {}, embed or Embed(), **fields)
    properties = Properties(
        "application/json",
        "utf-8",
        {**task_headers(call, origin="o"), **(headers or {})},
        reply_to=fields.get("reply_to"),
    )
    raw = stored.encode("", "q", properties)
    body = json.dumps(task_body(call)).encode()
    outcome, _ = run_job(app, Job(1, name, "q", 1, False, raw, stored.READER.home, body))
    return outcome


def sent(letter):
    """The call that a letter asks for."""
    publication = letter.publication
    headers = publication.properties.headers
    return read_call(headers, json.loads(publication.body))


# --- hooks ---------------------------------------------------------------------------------------


def test_hooks_of_a_base_class_hear_of_a_success():
    assert isinstance(run("divide", 4, 2), Done)
    assert heard == [
        ("before_start", "id-1", [4, 2], {}),
        ("on_success", 2.0, [4, 2]),
        ("after_return", "SUCCESS"),
    ]


def test_hooks_of_a_base_class_hear_of_a_failure_and_can_ask_what_for():
    assert isinstance(run("divide", 1, 0), Failed)
    assert heard[1:] == [
        (
            "on_failure",
            "ZeroDivisionError('division by zero')",
            [1, 0],
            "ZeroDivisionError: division by zero",
        ),
        ("after_return", "FAILURE"),
    ]


def test_a_hook_that_raises_changes_nothing(caplog):
    @app.task(name="hooked", on_success=lambda *_: 1 / 0)
    def hooked():
        return 3

    assert isinstance(run("hooked"), Done)
    assert "a hook of task hooked failed" in caplog.text


def test_options_of_a_base_class_are_those_of_its_tasks():
    assert divide.max_retries == 1
    assert app.find_task("auto").max_retries == 3


def test_a_class_can_be_a_task():
    class Adder(Task):
        name = "adder"
        priority = 3

        def run(self, a, b):
            return self.request.id, a + b

    adder = app.register_task(Adder())
    assert adder.send_options() == {"priority": 3}
    assert read_result(json.loads(run("adder", 1, 2).reply)).value == ["id-1", 3]
    assert adder.apply((1, 2)).get()[1] == 3


# --- retries -------------------------------------------------------------------------------------


def test_a_retry_is_the_same_task_later_with_all_that_follows_it():
    link = Signature("log").as_wire()
    embed = Embed(callbacks=[link], errbacks=[link], chain=[link], chord=link)
    fields = {"root_id": "root", "parent_id": "p", "group": "g", "group_index": 2}
    outcome = run("flaky", 1.5, embed=embed, headers={"mine": 1}, soft_limit=3.0, **fields)
    assert isinstance(outcome, Retried)
    assert (outcome.delay, outcome.error) == (1.5, "ConnectionError: away")
    assert json.loads(outcome.reply)["status"] == "RETRY"
    publication = outcome.again.publication
    assert (publication.routing_key, publication.delay) == ("q", 1.5)
    assert publication.properties.headers["mine"] == 1
    again = sent(outcome.again)
    assert again == Call("flaky", "id-1", [1.5], {}, embed, 1, "root", "p", "g", 2, soft_limit=3.0)
    assert heard[1:] == [("on_retry", "ConnectionError('away')"), ("after_return", "RETRY")]


def test_after_the_last_retry_the_error_itself_is_the_failure():
    outcome = run("flaky", 1.0, retries=1)
    assert isinstance(outcome, Failed) and outcome.error == "ConnectionError: away"


def test_a_retry_too_many_without_an_error_has_one_of_its_own():
    @app.task(name="insists", bind=True, max_retries=0)
    def insists(self):
        self.retry()

    assert run("insists").error.startswith("MaxRetriesExceededError: task insists (id-1)")


def test_listed_errors_are_retried_by_themselves():
    outcome = run("auto", False)
    assert isinstance(outcome, Retried) and outcome.delay == 180.0
    assert isinstance(run("auto", False, retries=3), Failed)
    assert isinstance(run("auto", True), Failed)


@pytest.mark.parametrize(
    ("options", "retries", "least", "most"),
    [
        ({"retry_backoff": True, "retry_jitter": False}, 0, 1, 1),
        ({"retry_backoff": True, "retry_jitter": False}, 3, 8, 8),
        ({"retry_backoff": 3, "retry_jitter": False}, 2, 12, 12),
        ({"retry_backoff": True, "retry_jitter": False, "retry_backoff_max": 5}, 9, 5, 5),
        ({"retry_backoff": True}, 3, 0, 8),
        ({"default_retry_delay": 7}, 2, 7, 7),
    ],
)
def test_the_delay_of_automatic_retries(options, retries, least, most):
    @App("backoff").task(name="backoff", autoretry_for=[OSError], max_retries=None, **options)
    def backoff() -> None: ...

    with AsCurrent(Request(Call("backoff", "id", [], {}, retries=retries))):
        retry = backoff.retry_after(OSError())
    assert isinstance(retry, Retry) and least <= retry.delay <= most
    assert retry.again.options["retries"] == retries + 1


def test_eagerly_a_retry_runs_at_once():
    tries = []

    @app.task(name="third", bind=True)
    def third(self):
        tries.append(self.request.retries)
        if len(tries) < 3:
            self.retry(countdown=100)
        return "done"

    assert third.apply().get() == "done" and tries == [0, 1, 2]


# --- other endings -------------------------------------------------------------------------------


def test_a_task_can_reject_its_message_or_be_ignored():
    @app.task(name="ends")
    def ends(how: str) -> None:
        raise {"reject": Reject("bad", requeue=False), "back": Reject("later", True)}.get(
            how, Ignore()
        )

    assert run("ends", "reject") == Rejected("bad", "Reject", False)
    assert run("ends", "back") == Rejected("later", "Reject", True)
    outcome = run("ends", "ignore", embed=Embed(callbacks=[Signature("log").as_wire()]))
    assert isinstance(outcome, Done) and outcome.reply == b"" and outcome.letters == []


def test_a_task_can_be_replaced_by_another():
    @app.task(name="replaced", bind=True)
    def replaced(self, n: int) -> None:
        self.replace(chain(divide.s(n, 1), divide.s(2)))

    embed = Embed(
        callbacks=[Signature("log").as_wire()],
        chain=[Signature("last", options={"task_id": "last"}).as_wire()],
    )
    outcome = run("replaced", 8, embed=embed)
    assert isinstance(outcome, Done) and outcome.reply == b""
    (letter,) = outcome.letters
    first = sent(letter)
    assert (first.name, first.args, first.parent_id) == ("divide", [8, 1], "id-1")
    last, second = first.embed.chain
    assert second["options"]["task_id"] == "id-1" and second["options"]["link"][0]["task"] == "log"
    assert last["options"]["task_id"] == "last"
    assert replaced.apply((8,)).get() == 4.0


def test_a_group_cannot_take_the_place_of_a_task():
    @app.task(name="many", bind=True)
    def many(self) -> None:
        self.replace(group(divide.s(1, 1)))

    assert "a group cannot replace a task" in run("many").error


def test_what_expired_before_it_began_is_skipped():
    assert run("divide", 1, 1, expires="2020-01-01T00:00:00+00:00") == Skipped("expired")
    assert isinstance(run("divide", 1, 1, expires="2999-01-01T00:00:00"), Done)


def test_a_result_that_nobody_wants_is_not_encoded():
    @app.task(name="quiet", ignore_result=True)
    def quiet(fails: bool = False) -> None:
        assert not fails

    @app.task(name="errors", ignore_result=True, store_errors_even_if_ignored=True)
    def errors() -> None:
        raise ValueError

    assert run("quiet").reply == b"" and run("quiet", True).reply == b""
    assert run("errors").reply != b""
    assert run("divide", 1, 1, ignore_result=True).reply == b""


# --- what follows --------------------------------------------------------------------------------


def test_links_and_the_rest_of_a_chain_travel_with_the_outcome():
    embed = Embed(
        callbacks=[Signature("log", ["x"]).as_wire()],
        chain=[Signature("last").as_wire(), Signature("next", options={"queue": "n"}).as_wire()],
    )
    outcome = run("divide", 4, 2, embed=embed, root_id="root")
    log, following = outcome.letters
    assert sent(log).args == [2.0, "x"] and log.queue.name == "celery"
    assert sent(following).args == [2.0] and following.queue.name == "n"
    assert sent(following).root_id == "root" and sent(following).parent_id == "id-1"
    assert [step["task"] for step in sent(following).embed.chain] == ["last"]


def test_a_failure_takes_the_rest_of_the_chain_with_it():
    rest = [Signature("c", options={"task_id": "c"}), Signature("b", options={"task_id": "b"})]
    outcome = run("divide", 1, 0, embed=Embed(chain=[step.as_wire() for step in rest]))
    assert outcome.letters == []
    assert [reply.task_id for reply in outcome.others] == ["b", "c"]
    result = read_result(json.loads(outcome.others[0].body))
    assert result.failure.type_name == "ZeroDivisionError"


def test_a_link_that_cannot_be_sent_fails_the_task():
    outcome = run(
        "divide", 4, 2, embed=Embed(callbacks=[{"task": "x", "options": {"priority": "high"}}])
    )
    assert isinstance(outcome, Failed) and "what follows the task cannot be sent" in outcome.error


def error_link(handler, *args):
    """Run ``handler`` as the error link of a failed task; return what it returned."""
    made = app.task(name="handler")(handler)
    failed = failed_run(
        Call("divide", "id-failed", [1, 0], {}), "q", Failure("ZeroDivisionError", "", ["no"], "tb")
    )
    try:
        outcome = run("handler", "id-failed", *args, embed=Embed(failed=failed.as_wire()))
        return read_result(json.loads(outcome.reply)).value
    finally:
        del app._tasks[made.name]


def test_an_error_link_that_takes_one_argument_gets_the_id_and_can_ask_for_the_rest():
    def handler(task_id):
        result = app.AsyncResult(task_id)
        info = result.info
        assert isinstance(info, RemoteError)
        return [task_id, result.state, str(info), result.args, result.kwargs, result.traceback]

    assert error_link(handler) == [
        "id-failed",
        "FAILURE",
        "ZeroDivisionError: no",
        [1, 0],
        {},
        "tb",
    ]


def test_an_error_link_that_takes_three_gets_request_error_and_traceback():
    def handler(request, exc, traceback):
        return [request.id, request.task, request.args, str(exc), traceback]

    assert error_link(handler) == [
        "id-failed",
        "divide",
        [1, 0],
        "ZeroDivisionError: no",
        "tb",
    ]


def test_an_error_link_keeps_its_own_arguments():
    def one(task_id, mine):
        return [task_id, mine]

    def three(request, exc, traceback, mine):
        return [request.id, mine]

    def any_number(*args):
        return [len(args), args[-1]]

    assert error_link(one, "x") == ["id-failed", "x"]
    assert error_link(three, "x") == ["id-failed", "x"]
    assert error_link(any_number, "x") == [4, "x"]


# --- sending -------------------------------------------------------------------------------------


def test_an_argument_that_cannot_be_sent_is_named():
    with pytest.raises(MessageError, match=r"task divide: argument 1 \(object\) cannot be sent"):
        divide.delay(1, object())
    with pytest.raises(MessageError, match=r"argument 'b' \(object\)"):
        divide.apply_async((1,), {"b": object()})


def test_unknown_options_are_errors_where_they_are_given():
    with pytest.raises(ConfigError, match="no option 'max_retry'; did you mean 'max_retries'"):
        app.task(name="x", max_retry=3)(lambda: None)
    with pytest.raises(ConfigError, match="autoretry_for is a list of exception classes"):
        app.task(name="x", autoretry_for=["OSError"])(lambda: None)
    with pytest.raises(ConfigError, match="3 per second"):
        app.task(name="x", rate_limit="3 per second")(lambda: None)
    with pytest.raises(UsageError, match="'contdown' is no option .*'countdown'"):
        divide.apply_async((1, 2), contdown=1)
    with pytest.raises(ConfigError, match="header 'task' is the protocol's own"):
        divide.apply_async((1, 2), headers={"task": "x"})
    with pytest.raises(ConfigError, match="priority is a whole number from 0 to 9"):
        divide.apply_async((1, 2), priority=10)
    with pytest.raises(ConfigError, match="would expire"):
        divide.apply_async((1, 2), countdown=5, expires=3)
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="time_limit is a number of seconds"):
            divide.apply_async((1, 2), time_limit=seconds)
    for task_id in ("x" * 256, "two\nlines", "nul\0"):
        with pytest.raises(UsageError, match="a task_id has at most 255"):
            divide.apply_async((1, 2), task_id=task_id)
    with pytest.raises(DecodeError):
        app.signature({"args": []})


@pytest.mark.parametrize("pause", [float("inf"), float("nan"), "soon"])
def test_a_retry_after_no_time_is_a_failure_of_the_task(pause):
    @app.task(name="impatient", bind=True)
    def impatient(self):
        raise self.retry(countdown=pause)

    with pytest.raises(ConfigError, match="countdown is a number of seconds"):
        impatient.apply().get()


def test_outside_of_a_run_nothing_can_be_retried():
    with pytest.raises(UsageError, match="not being run by a worker"):
        flaky.retry()


def test_max_retries_exceeded_is_no_surprise_for_who_catches_it():
    with (
        AsCurrent(Request(Call("flaky", "id", [], {}, retries=9))),
        pytest.raises(MaxRetriesExceeded),
    ):
        flaky.retry()


# --- shared tasks --------------------------------------------------------------------------------


def test_a_shared_task_belongs_to_every_app_and_is_sent_by_the_current_one():
    try:

        @shared_task(name="shared.double", priority=2)
        def double(n: int) -> int:
            return 2 * n

        first, second = App("first"), App("second")
        assert first.find_task("shared.double") is second.tasks["shared.double"]
        assert double.app is second
        assert double.s(2).apply().get() == 4
        assert double.name in [task.name for task in first.info().tasks]
    finally:
        shared.pop("shared.double", None)
        make_current(app)


def test_a_task_speaks_for_itself_only_and_does_not_end_itself_by_words() -> None:
    app = App("progress", broker="memory://progress", settings={"result_max_size": 1000})
    said = []

    @app.task(bind=True)
    def climb(self: Task[..., Any], **said: Any) -> None:
        self.update_state(**said)

    def wrong(error: type[Exception], words: str, **given: Any) -> None:
        with pytest.raises(error, match=words):
            climb.apply(kwargs=given).get()
        said.append(words)

    wrong(UsageError, "not for a task to say", state="SUCCESS")
    wrong(UsageError, "not for a task to say", state="RETRY")
    wrong(UsageError, "cannot speak for other", task_id="other")
    wrong(UsageError, "a state is a word", state="")
    with pytest.raises(TooLarge, match="result_max_size"):
        climb.apply(kwargs={"meta": "x" * 2000}).get()
    assert climb.apply(kwargs={"state": "HALF", "meta": [1]}).get() is None
    with pytest.raises(UsageError, match="no request"):
        climb.update_state(meta=1)


def test_how_a_task_is_retried_by_itself_can_be_said_as_celery_says_it() -> None:
    app = App("retried", broker="memory://retried")
    seen: list[int] = []

    @app.task(bind=True, autoretry_for=(OSError,), retry_kwargs={"max_retries": 5, "countdown": 7})
    def away(self: Task[..., Any]) -> None:
        seen.append(self.request.retries)
        raise OSError("away")

    assert away.apply().failed() and seen == [0, 1, 2, 3, 4, 5]
    with AsCurrent(Request(Call("away", "1", [], {}), queue="q")):
        retry = away.retry_after(OSError())
        assert retry is not None and retry.delay == 7.0
        away.retry_backoff, away.retry_jitter = 20, False
        retry = away.retry_after(OSError())
        assert retry is not None and retry.delay == 20.0
    with pytest.raises(ConfigError, match="retry_kwargs is a dict of max_retries and countdown"):
        app.task(retry_kwargs={"max_retry": 5})(len)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("max_retry", 3, "did you mean 'max_retries'"),
        ("reject_on_worker_lost", False, "run again, three times at most"),
        ("acks_on_failure_or_timeout", False, "requeue=True"),
        ("Strategy", "a:b", "say strategy="),
        ("Request", "a:b", "say request_class="),
        ("on_failure", "function", "on_failure is a function"),
        ("backend", "redis://", "result_backend"),
    ],
)
def test_an_option_that_is_not_here_is_refused_with_what_is(option, value, words) -> None:
    app = App("options", broker="memory://options")
    with pytest.raises(ConfigError, match=words):
        app.task(**{option: value})(len)
    if option not in ("max_retry", "on_failure"):
        with pytest.raises(ConfigError, match=words):
            type("Base", (Task,), {option: value})


def test_options_of_celerys_that_say_what_is_so_anyway_are_taken() -> None:
    app = App("same", broker="memory://same")
    task = app.task(reject_on_worker_lost=True, trail=True, shared=False, lazy=True)(len)
    assert not hasattr(task, "reject_on_worker_lost")


def test_arguments_that_do_not_fit_are_sent_if_the_task_says_so() -> None:
    app = App("loose", broker="memory://loose")
    loose = app.task(typing=False)(lambda a: a)
    assert loose.apply((1, 2)).failed()
    with pytest.raises(TypeError, match="its signature is"):
        app.task(name="strict")(lambda a: a).apply((1, 2))
    app.close()


@app.task
def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("time_limit", "5", "number of seconds"),
        ("soft_time_limit", -1, "number of seconds"),
        ("expires", "soon", "number of seconds"),
        ("max_retries", "3", "whole number"),
        ("max_retries", -3, "whole number"),
        ("default_retry_delay", None, "number of seconds"),
        ("retry_backoff", "yes", "True, False"),
        ("priority", 99, "0 to 9"),
        ("acks_late", "no", "True or False"),
        ("acks_late", None, "True or False"),
        ("queue", 5, "a name or a Queue"),
        ("strategy", len, "a name"),
    ],
)
def test_a_wrong_value_of_an_option_is_refused_where_it_stands(option, value, words):
    with pytest.raises(ConfigError, match=f"{option} is .*{words}"):
        App("wrong").task(**{option: value})(len)


def test_a_right_value_of_an_option_stays_as_it_was_said():
    options = {"time_limit": 5, "retry_backoff": 2, "max_retries": None, "ignore_result": None}
    task = App("right").task(name="right", expires=0.5, queue="slow", **options)(len)
    assert {name: getattr(task, name) for name in options} == options


@pytest.mark.parametrize("send", [app.send_task, lambda name, *rest: double.apply_async(*rest)])
def test_arguments_that_are_not_in_a_list_are_refused_with_how_to_write_them(send):
    with pytest.raises(UsageError, match=r"are a sequence, not 1; write \[1\]"):
        send("tasks.double", 1)
    with pytest.raises(UsageError, match=r"by name .* are a mapping, not 2"):
        send("tasks.double", [1], 2)
    with pytest.raises(UsageError, match="are a sequence, not 'ab'"):
        send("tasks.double", "ab")


def test_an_empty_group_and_an_id_that_is_none_are_refused_by_their_names():
    with pytest.raises(UsageError, match="a group needs a task"):
        group([]).delay()
    with pytest.raises(UsageError, match="the id of a task is a string, not None"):
        app.AsyncResult(None)

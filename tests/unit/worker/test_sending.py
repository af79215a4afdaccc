"""Sending: uniqueness, transactions, patience, and what the message says."""

from __future__ import annotations

import contextlib
import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from queue_core import ConfigError, MessageError, NotConfirmed, Producer, Unsupported, UsageError
from queue_core.worker import App, group
from queue_core.worker.composing import Composer
from queue_core.worker.patience import patience, read_policy
from queue_core.worker.pools.threads import ThreadPool
from queue_core.worker.runner import Worker, WorkerOptions
from queue_core.worker.settings import plain_queue
from queue_core.worker.unique import unique_key

numbers = itertools.count()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def app():
    made = App("sending", broker=f"memory://sending-{next(numbers)}")
    yield made
    made.close()


def waiting(app, queue="celery"):
    return app.connection().inspect(queue).ready


# --- the message ---------------------------------------------------------------------------------


@pytest.fixture
def composer():
    defaults = {"slow": {"queue": "slow", "priority": 3, "serializer": "msgpack"}}
    return Composer(
        lambda name, options: plain_queue(options.get("queue") or "default"),
        lambda signature: defaults.get(signature.task, {}),
        now=lambda: NOW,
    )


def compose(composer, name="t", *args, **options):
    return composer.compose(App("x").signature(name, args, task_id="id", **options))


def test_a_message_goes_to_the_queue_by_its_name(composer):
    letter = compose(composer)
    assert (letter.publication.exchange, letter.publication.routing_key) == ("", "default")
    assert letter.queue == plain_queue("default")


def test_the_tasks_own_options_count_unless_the_call_says_otherwise(composer):
    letter = compose(composer, "slow", priority=5)
    assert (letter.queue.name, letter.publication.properties.priority) == ("slow", 5)
    assert letter.publication.properties.content_type == "application/x-msgpack"


def test_an_exchange_and_a_key_are_used_as_they_are(composer):
    letter = compose(composer, exchange="events", routing_key="a.b")
    assert letter.queue is None
    assert (letter.publication.exchange, letter.publication.routing_key) == ("events", "a.b")
    letter = compose(composer, queue="q", routing_key="other")
    assert (letter.publication.exchange, letter.publication.routing_key) == ("q", "other")
    assert letter.queue.name == "q"


def test_an_option_of_a_task_that_was_changed_counts_from_the_next_message_on(app):
    @app.task(name="t", ignore_result=True)
    def task():
        """Do nothing."""

    def sent():
        return app.composer.compose(task.s().set(task_id="id"))

    assert sent().queue.name == "celery"
    task.queue, task.priority = "other", 4
    assert (sent().queue.name, sent().publication.properties.priority) == ("other", 4)
    app.config_from_object({"task_routes": {"t": {"priority": 7}}, "task_default_queue": "usual"})
    task.queue = task.priority = None
    assert (sent().queue.name, sent().publication.properties.priority) == ("usual", 7)


def test_what_is_nothing_is_not_said_but_the_first_of_a_group_is(composer):
    def headers(**options):
        return compose(composer, "t", **options).publication.properties.headers

    unsaid = {"shadow", "eta", "expires", "group", "group_index", "parent_id", "retries"}
    assert not unsaid & set(headers(retries=0))
    said = headers(group_id="g", group_index=0, parent_id="p", retries=1)
    assert (said["group"], said["group_index"]) == ("g", 0)
    assert (said["parent_id"], said["retries"]) == ("p", 1)


def test_the_messages_of_a_task_share_nothing_of_their_runs(composer):
    first = compose(composer, "t", 1, root_id="root", group_id="group", expires=60)
    first.publication.properties.headers["mine"] = True
    second = compose(composer, "t")
    assert compose(composer, "t", headers={"x": 1}).publication.properties.headers["x"] == 1
    headers = second.publication.properties.headers
    assert (headers["root_id"], headers["argsrepr"]) == ("id", "()")
    assert not {"group", "parent_id", "expires"} & set(headers)
    assert second.publication.properties.expiration is None
    assert not {"mine", "x"} & set(headers) and json.loads(second.publication.body)[0] == []


@pytest.mark.parametrize(
    ("options", "delay", "left"),
    [
        ({"countdown": 2.5}, 2.5, None),
        ({"countdown": -1}, 0, None),
        ({"eta": NOW + timedelta(seconds=7)}, 7, None),
        ({"eta": (NOW + timedelta(seconds=7)).replace(tzinfo=None)}, 7, None),
        ({"eta": "2026-01-02T03:04:15+00:00"}, 10, None),
        ({"eta": NOW - timedelta(days=1)}, 0, None),
        ({"expires": 60}, 0, 60),
        ({"expires": NOW + timedelta(minutes=2)}, 0, 120),
        ({"expires": timedelta(minutes=2), "countdown": 3}, 3, 120),
    ],
)
def test_times_are_seconds_or_moments(composer, options, delay, left):
    publication = compose(composer, **options).publication
    assert publication.delay == delay
    assert "eta" not in publication.properties.headers
    end = None if left is None else (NOW + timedelta(seconds=left)).isoformat()
    assert publication.properties.headers.get("expires") == end


def test_no_broker_drops_a_task_that_expires_for_somebody_may_wait(composer):
    assert compose(composer, expires=60).publication.properties.expiration is None


def test_what_no_broker_can_wait_for_is_said_by_the_message(composer):
    year = timedelta(days=365)
    publication = compose(composer, eta=NOW + year, expires=NOW + 2 * year).publication
    headers = publication.properties.headers
    assert publication.delay == timedelta(days=40).total_seconds()
    assert publication.properties.expiration is None
    assert headers["eta"] == (NOW + year).isoformat()
    assert headers["expires"] == (NOW + 2 * year).isoformat()


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": "soon"},
        {"countdown": float("inf")},
        {"countdown": float("nan")},
        {"expires": float("inf")},
        {"expires": 1e12},
        {"countdown": 1e12},
        {"eta": 3},
        {"eta": "tomorrow"},
        {"expires": True},
        {"priority": 1.5},
        {"headers": {"": 1}},
        {"headers": {"a\nb": 1}},
        {"headers": {"x": object()}},
        {"headers": {"id": "x"}},
        {"countdown": 5, "expires": 5},
    ],
)
def test_an_option_that_is_wrong_is_a_config_error(composer, options):
    with pytest.raises(ConfigError):
        compose(composer, **options)


@pytest.mark.parametrize("value", [float("nan"), 2**70, {1}, {"y": {1: 2}}, object()])
def test_a_header_that_cannot_be_sent_is_refused_by_its_name(composer, value):
    with pytest.raises(ConfigError, match="the header 'mine' cannot be sent"):
        compose(composer, headers={"other": 1, "mine": value})


def test_limits_and_names_travel_in_the_headers(composer):
    headers = compose(composer, time_limit=9, soft_time_limit=4, shadow="s", headers={"mine": 1})
    headers = headers.publication.properties.headers
    assert (headers["timelimit"], headers["shadow"], headers["mine"]) == ([9, 4], "s", 1)


# --- from an app ---------------------------------------------------------------------------------


def test_what_a_client_of_celerys_has_stamped_travels_in_the_headers(composer):
    headers = compose(composer, stamped_headers=["by"], by="me").publication.properties.headers
    assert headers["stamped_headers"] == ["by"] and headers["stamps"] == {"by": "me"}


def test_an_argument_that_cannot_be_sent_leaves_nothing_behind(app):
    @app.task(name="late", unique_for=60)
    def late(what: object) -> None: ...

    for _ in range(2):
        with pytest.raises(MessageError):
            late.delay(object())
    assert app.send_task("other").id and waiting(app) == 1


def test_the_same_arguments_are_sent_once_in_a_while(app):
    @app.task(name="mail", unique_for=60)
    def mail(to: str, *, text: str = "") -> None: ...

    first = mail.delay("ann", text="hi")
    assert mail.delay("ann", text="hi").id == first.id
    assert mail.delay("bob", text="hi").id != first.id
    assert mail.delay("ann", text="ho").id != first.id
    assert waiting(app) == 3
    with pytest.raises(UsageError, match="one by one"):
        mail.send_many([("ann",)])


def test_what_could_not_be_sent_may_be_sent_again(app):
    @app.task(name="once", unique_for=60)
    def once() -> None: ...

    with pytest.raises(ConfigError):
        once.apply_async(queue="{}")
    assert once.delay().id and waiting(app) == 1


def test_what_could_not_be_sent_in_time_takes_the_turn_of_nobody_else(app, monkeypatch):
    """Its own turn may be over, and another process's, when its sending fails."""

    @app.task(name="once", unique_for=60)
    def once() -> None: ...

    store, key = app.connection().key_value(), unique_key(once.s())

    def fail_late(*_, **__):
        store.key_delete(key)
        store.key_set(key, b"another", version=0)
        raise NotConfirmed("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Producer, "publish_many", fail_late)
        with pytest.raises(NotConfirmed):
            once.delay()
    assert once.delay().id == "another"


def test_a_task_has_sent_what_the_broker_has(app):
    @app.task(name="mail", unique_for=60)
    def mail(to: object) -> None: ...

    @app.task(name="mails")
    def mails() -> list[str]:
        ids = {mail.delay("ann").id for _ in range(2)}
        with contextlib.suppress(MessageError):
            mail.delay(object())
        with contextlib.suppress(ConfigError):
            mail.apply_async(("bob",), queue="{}")
        return [*ids, *(result.id for result in other.send_many([()] * 2))]

    other = app.task(name="other")(lambda: None)
    result = mails.delay()
    assert Worker(ThreadPool(1, app), WorkerOptions(broker=app.broker, burst=True)).run() == 0
    assert [child.id for child in result.children] == result.get(30)


def test_arguments_are_the_same_if_they_are_written_the_same():
    app = App("unique")
    one = app.signature("t", [{"a": 1, "b": [2]}], {"x": 1, "y": 2})
    other = app.signature("t", ({"b": (2,), "a": 1},), {"y": 2, "x": 1})
    assert unique_key(one) == unique_key(other)
    assert unique_key(one) != unique_key(app.signature("t", [{"a": 1}]))
    assert unique_key(one) != unique_key(app.signature("u", one.args, one.kwargs))


def test_a_broker_without_a_store_cannot_keep_tasks_unique():
    app = App("no store", broker="amqp://nobody@127.0.0.1:1//", backend="rpc://")

    @app.task(unique_for=60, ignore_result=True)
    def once() -> None: ...

    with pytest.raises(Unsupported, match="backend"):
        once.delay()
    app.close()


def test_a_task_is_sent_if_and_only_if_the_transaction_commits(tmp_path):
    url = f"sqlite:///{tmp_path}/shop.db"
    app = App("shop", broker=url, backend="rpc://")
    app.connection().declare(app.queue())
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            with connection.begin() as transaction:
                app.send_task("buy", (1,), transaction=connection, ignore_result=True)
                transaction.rollback()
            with connection.begin():
                app.send_task("buy", (2,), transaction=connection, ignore_result=True)
        with app.connection().consumer(app.queue()) as consumer:
            message = consumer.receive(30)
            assert message is not None and message.payload[0] == [2]
            assert consumer.receive(0.1) is None
            message.ack()
    finally:
        engine.dispose()
        app.close()


def test_nothing_of_a_group_is_sent_if_one_of_its_tasks_cannot_be(app):
    with pytest.raises(MessageError):
        group(app.signature("t", (1,)), app.signature("t", (object(),))).delay()
    assert app.send_task("other").id and waiting(app) == 1


def test_who_does_not_want_to_wait_for_the_broker_is_told_soon():
    app = App("away", broker="amqp://nobody@127.0.0.1:1//")
    with pytest.raises(Exception, match="127.0.0.1"):
        app.send_task("t", retry=False, ignore_result=True)
    app.close()


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        ({}, None),
        ({"timeout": 3}, 3.0),
        ({"timeout": None}, None),
        ({"timeout": 2, "max_retries": 9}, 2.0),
        ({"max_retries": 0}, 1.0),
        ({"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}, 1.6),
        ({"interval_start": 1, "interval_max": 1}, 4.0),
        ({"max_retries": None}, 365 * 86400.0),
    ],
)
def test_a_policy_of_celerys_is_the_time_that_it_would_take(policy, seconds):
    assert patience(read_policy(policy)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"max_retry": 3}, "did you mean 'max_retries'"),
        ({"timeout": "soon"}, "timeout of a retry_policy is a number"),
        ({"interval_start": None}, "interval_start of a retry_policy is a number"),
        ("never", "a dict of timeout"),
    ],
)
def test_a_policy_that_is_none_is_refused_before_anything_is_sent(app, policy, words):
    app.connection().declare(app.queue())
    with pytest.raises(ConfigError, match=words):
        app.send_task("t", retry_policy=policy)
    with pytest.raises(ConfigError, match=words):
        app.send_many("t", [(1,)], retry_policy=policy)
    assert waiting(app) == 0


def test_many_tasks_are_noted_as_sent_a_hundred_at_a_time(monkeypatch):
    app = App("noted", broker="memory://noted", settings={"task_track_sent": True})
    other = App("other", broker="memory://noted")
    store = type(app.connection().key_value())
    noted, set_many = [], store.key_set_many
    monkeypatch.setattr(
        store,
        "key_set_many",
        lambda self, writes: (noted.append(len(writes)), set_many(self, writes))[1],
    )
    results = app.send_many("t", ((n,) for n in range(250)))
    assert noted == [100, 100, 50] and waiting(app) == 250
    assert {other.AsyncResult(one.id).state for one in results} == {"PENDING"}
    group(app.signature("t", (n,)) for n in range(30)).delay()
    app.send_many("t", [(1,)], ignore_result=True)
    assert noted == [100, 100, 50, 30]
    for made in (app, other):
        made.close()


def test_many_are_sent_if_and_only_if_the_transaction_commits(tmp_path):
    url = f"sqlite:///{tmp_path}/shop.db"
    app = App("shop", broker=url)
    app.connection().declare(app.queue())
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            with connection.begin() as transaction:
                app.send_many("buy", [(1,), (2,)], transaction=connection, ignore_result=True)
                transaction.rollback()
            assert waiting(app) == 0
            with connection.begin():
                app.send_many("buy", [(3,), (4,)], transaction=connection, ignore_result=True)
            assert waiting(app) == 2
    finally:
        engine.dispose()
        app.close()


def test_what_is_linked_is_a_task_and_not_its_name(app):
    for option in ("link", "link_error"):
        with pytest.raises(
            UsageError, match=rf"{option} is a signature .* app.signature\('note'\)"
        ):
            app.send_task("t", **{option: "note"})
    with pytest.raises(UsageError, match="link is a signature or a task, not 3"):
        app.send_task("t", link=[app.signature("note"), 3])


def test_a_signature_is_checked_when_it_is_sent_if_its_task_is_known(app):
    @app.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    with pytest.raises(TypeError, match="missing a required argument: 'b'"):
        add.s(1).apply_async()
    with pytest.raises(TypeError, match="too many"):
        app.signature("add", (1, 2, 3)).delay()
    assert (add.s(1, 2) | add.s(3)).delay().id  # the second one gets what the first returns
    assert app.send_task("add", (1,)).id  # by its name: the worker's may be another one
    assert waiting(app) == 2

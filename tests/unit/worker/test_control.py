"""Commands of remote control, called as a node calls them; nothing is connected."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from queue_core import ConfigError, Connection, ConnectionLost, Queue, UsageError
from queue_core.mailbox import Panel
from queue_core.testing.eventually import eventually
from queue_core.worker.consumer import consumer as consumer_module
from queue_core.worker.consumer.consumer import TaskConsumer
from queue_core.worker.consumer.control import Control as ControlStep
from queue_core.worker.control import asking, control_command, inspect_command, telling
from queue_core.worker.control.client import Control
from queue_core.worker.control.registry import modules, registered
from queue_core.worker.control.signal_names import signal_number
from queue_core.worker.outcome import AppInfo, TaskInfo
from queue_core.worker.pools.base import Abilities, PoolInfo
from queue_core.worker.pools.coroutines import ASYNCIO
from queue_core.worker.runner import Worker, WorkerOptions
from queue_core.worker.settings import Settings

SECRET = "hunter2"


class Pool:
    """A pool that can do nothing."""

    abilities = Abilities("threads")
    ahead = 2

    def info(self):
        return PoolInfo("threads", 2)

    def abort(self):
        raise AssertionError("nobody asked for that")


@pytest.fixture
def consumer():
    """What commands get; its app has three tasks, and a secret in its settings."""
    worker = Worker(Pool(), WorkerOptions(name="w"))
    settings = Settings(
        result_backend=f"redis://:{SECRET}@host/0", worker_drain=5.0, task_default_queue="q"
    )
    tasks = [
        TaskInfo("celery.chord"),
        TaskInfo("app.one"),
        TaskInfo("app.awaits", coroutine=True),
        TaskInfo("app.two", rate_limit=2.0, hard_limit=9.0),
    ]
    worker._info = AppInfo("app", tasks, [Queue("q")], settings)
    worker.consumer = TaskConsumer(worker)
    with Connection("memory://") as connection:
        worker.consumer.connection = connection
        yield worker.consumer
    worker._signals.close()


def test_settings_are_told_without_passwords(consumer):
    told = asking.conf(consumer)
    assert told["result_backend"] == "redis://:***@host/0"
    assert told["worker_drain"] == 5.0 and told["worker_queues"] == ["q"]
    assert "task_serializer" not in told
    everything = asking.conf(consumer, with_defaults=True)
    assert everything["task_serializer"] == "json" and everything["task_always_eager"] is False
    assert SECRET not in str(everything) + asking.report(consumer)["ok"]


def test_tasks_are_told_with_what_is_set_of_them(consumer):
    both = ["app.awaits", "app.one"]
    assert asking.registered(consumer) == [*both, "app.two [rate_limit=2.0 hard_limit=9.0]"]
    assert "celery.chord" in asking.registered(consumer, builtins=True)
    assert asking.registered(consumer, ["hard_limit"]) == [*both, "app.two [hard_limit=9.0]"]


@pytest.mark.parametrize("said", [None, "", "SIGTERM", "sigterm", "TERM", 15, "15"])
def test_a_signal_has_many_names(said):
    assert signal_number(said) == signal.SIGTERM


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        *((said, "SIGTERM and SIGKILL are two") for said in ("NOTHING-LIKE", 99, "-1", "0")),
        *((said, "did you mean 'SIGTERM'") for said in ("TERMM", "sigterm9", "SIG_TERM")),
    ],
)
def test_what_is_no_signal_is_refused_by_the_command_and_before_it_is_sent(consumer, said, advice):
    with pytest.raises(UsageError, match=f"there is no signal .*{advice}"):
        telling.revoke(consumer, "a", terminate=True, signal=said)
    assert not list(consumer.worker.revoked)
    unconnected = Control(lambda: pytest.fail("it connects"))
    for give in (unconnected.revoke, unconnected.terminate):
        with pytest.raises(UsageError, match=f"there is no signal .*{advice}"):
            give("a", signal=said)


def test_limits_that_the_pool_cannot_keep_are_refused(consumer):
    with pytest.raises(UsageError, match="task app.one has a time limit of 1 s, and -P threads"):
        telling.time_limit(consumer, "app.one", hard=1.0)
    assert consumer.tasks["app.one"].hard_limit is None


def test_a_pool_of_coroutines_keeps_a_soft_limit_of_those_alone(consumer, monkeypatch):
    monkeypatch.setattr(Pool, "abilities", ASYNCIO)
    assert "ok" in telling.time_limit(consumer, "app.awaits", soft=1.0)
    assert consumer.tasks["app.awaits"].soft_limit == 1.0
    with pytest.raises(UsageError, match="in a thread, where it cannot be interrupted"):
        telling.time_limit(consumer, "app.one", soft=1.0)
    assert consumer.tasks["app.one"].soft_limit is None


def test_a_rate_limit_for_all_workers_needs_a_store(consumer, monkeypatch):
    assert telling.rate_limit(consumer, "app.one", "3/s cluster")["ok"].startswith("new rate")
    assert consumer.tasks["app.one"].rate_shared
    monkeypatch.setattr(Connection, "features", SimpleNamespace(key_value=False), raising=False)
    with pytest.raises(UsageError, match="takes a broker with a key-value store"):
        telling.rate_limit(consumer, "app.two", "3/s cluster")
    assert consumer.tasks["app.two"].rate_limit == 2.0


@pytest.fixture
def meanwhile():
    """Do something on another thread; it has ended, or waits for this one, when this returns."""
    threads = []

    def do(*call):
        threads.append(threading.Thread(target=call[0], args=call[1:]))
        threads[-1].start()
        threads[-1].join(0.1)

    yield do
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_limit_that_is_set_while_a_strategy_is_made_counts(consumer, monkeypatch, meanwhile):
    tellings = iter([lambda: telling.rate_limit(consumer, "app.one", "7/s")])

    def load(path):
        for tell in tellings:
            meanwhile(tell)
        return lambda task, consumer: {"rate": task.rate_limit}

    monkeypatch.setattr(consumer_module, "load", load)
    assert consumer.strategy("app.one") == {"rate": None}
    eventually(lambda: consumer.strategy("app.one") == {"rate": 7.0})


def test_two_limits_that_are_set_at_once_both_count(consumer, monkeypatch, meanwhile):
    tellings = iter([lambda: telling.rate_limit(consumer, "app.one", "7/s")])

    def check_task(abilities, task):
        for tell in tellings:
            meanwhile(tell)

    monkeypatch.setattr(consumer_module, "check_task", check_task)
    telling.time_limit(consumer, "app.one", hard=5.0)
    eventually(lambda: consumer.tasks["app.one"].rate_limit == 7.0)
    assert consumer.tasks["app.one"].hard_limit == 5.0


def test_who_says_hello_is_told_of_revoked_ids_and_tells_of_others(consumer):
    revoked = consumer.worker.revoked
    revoked.add(["a"])
    told = telling.hello(consumer, "celery@other", ["a", "b"])
    assert told == {"revoked": ["a", "b"], "clock": consumer.worker.clock.value}
    assert telling.hello(consumer, "celery@other", {"c": 1.5})["revoked"] == ["a", "b", "c"]
    assert telling.hello(consumer, consumer.worker.options.name) is None


def test_queues_of_others_are_named_with_ours(consumer):
    for command in (telling.cancel_consumer, telling.pause, telling.resume):
        with pytest.raises(UsageError, match="does not take from 'x'; it takes from q"):
            command(consumer, "x")
    with pytest.raises(UsageError, match="add_consumer takes no durable"):
        telling.add_consumer(consumer, "x", durable=False)
    assert telling.add_consumer(consumer, "q") == {"ok": "already consuming from q"}


@pytest.mark.parametrize("ids", ["", ["a", ""]])
def test_an_empty_id_is_not_revoked(consumer, ids):
    with pytest.raises(UsageError, match="the id of a task is empty"):
        telling.revoke(consumer, ids)
    assert not list(consumer.worker.revoked)


def test_a_queue_without_a_name_is_not_taken_from(consumer):
    with pytest.raises(UsageError, match="a queue needs a name"):
        telling.add_consumer(consumer, "")


def test_what_is_told_before_the_worker_takes_messages_counts_when_it_does(consumer):
    telling.add_consumer(consumer, "more")
    telling.cancel_consumer(consumer, "q")
    telling.add_consumer(consumer, "last")
    telling.pause(consumer, "more")
    consumer.intake.open(consumer.connection, SimpleNamespace(queues={}, idle=True))
    consumer.intake.renew()
    assert list(consumer.queues) == ["more", "last"] and consumer.intake.paused == {"more"}
    assert consumer.connection.inspect("last").consumers == 1
    assert consumer.connection.inspect("more").consumers == 0


def test_a_pause_that_fails_is_none(consumer, monkeypatch):
    consumer.intake.open(consumer.connection, SimpleNamespace(queues={}, idle=True))

    def fail(*_):
        raise ConnectionLost("the broker is away")

    with monkeypatch.context() as patch:
        patch.setattr(consumer.connection, "declare", fail)
        with pytest.raises(ConnectionLost):
            telling.pause(consumer, "q")
    assert not consumer.intake.paused
    telling.pause(consumer)
    with monkeypatch.context() as patch:
        patch.setattr(consumer.connection, "declare", fail)
        with pytest.raises(ConnectionLost):
            telling.resume(consumer)
    assert consumer.intake.paused == {"q"}


def test_a_level_that_is_none_is_refused(consumer):
    with pytest.raises(UsageError, match="there is no level 'loud'"):
        telling.log_level(consumer, "loud")


def test_celerys_names_are_known_too():
    panel = Panel(asking.panel, telling.panel)
    for alias in ("active", "reserved", "schedule", "revoked", "tasks", "conf"):
        assert f"dump_{alias}" in panel
    for name in (
        *("stats", "active_queues", "query_task", "report", "memsample", "revoke", "terminate"),
        *("rate_limit", "time_limit", "pool_grow", "pool_shrink", "pool_restart", "shutdown"),
        *("add_consumer", "cancel_consumer", "pause", "resume", "log_level", "hello"),
    ):
        assert panel.find(name).meta.help


@pytest.fixture
def registry(monkeypatch):
    """An empty list of an app's commands, for this test."""
    monkeypatch.setattr("queue_core.worker.control.registry._commands", [])


def test_a_module_that_is_imported_again_registers_its_commands_anew(registry):
    def define(answer):
        @inspect_command
        def mine(consumer):
            return answer

    define(1)
    define(2)
    [(handler, options)] = registered()
    assert handler(None) == 2 and options == {"kind": "inspect"}
    assert modules() == [__name__]


def test_a_command_with_a_name_of_ours_is_refused(registry, consumer):
    @control_command(name="revoke")
    def mine(consumer):
        return None

    with pytest.raises(ConfigError, match="there is a command 'revoke' already"):
        ControlStep(consumer).create(consumer)


def test_commands_that_cannot_be_imported_are_named(consumer):
    consumer.worker.info.commands.append("no_such_module")
    with pytest.raises(ConfigError, match="commands in module 'no_such_module' cannot be imported"):
        ControlStep(consumer).create(consumer)


def test_a_worker_is_as_its_options_say_and_else_as_the_settings_do(consumer):
    worker = consumer.worker
    assert (worker.drain, worker.lease, worker.prefetch, worker.statedb) == (5.0, 30.0, None, "")
    assert worker.controlled
    worker._info.settings = Settings(
        worker_prefetch_multiplier=3, worker_state_db="state-%p", worker_enable_remote_control=False
    )
    assert worker.prefetch == 6  # the pool runs two at once
    assert worker.statedb == f"state-{os.getpid()}" and not worker.controlled
    worker.options = WorkerOptions(
        drain=1.0, lease=2.0, prefetch=7, statedb="", control=True, queues=["x"]
    )
    assert (worker.drain, worker.lease, worker.prefetch, worker.statedb) == (1.0, 2.0, 7, "")
    assert worker.controlled
    assert list(TaskConsumer(worker).queues) == ["x"]

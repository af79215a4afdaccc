"""Links, error links, chains, groups, chords and retries with a real worker on a real broker."""

from __future__ import annotations

import importlib
import re
import threading
import time

import pytest

from queue_core import RemoteError, Unsupported
from queue_core.testing.eventually import eventually
from queue_core.worker import chord, group
from queue_core.worker.pools.threads import ThreadPool
from queue_core.worker.runner import Worker, WorkerOptions
from queue_core.worker.sending import RPC
from tests.acceptance import canvas_jobs


@pytest.fixture
def processes(start_worker):
    """A worker whose tasks run in processes that can be killed."""
    return start_worker("-A", "canvas_jobs:app")


@pytest.fixture
def worker(broker_url, backend, queue, monkeypatch):
    """A worker in this process, which is there at once."""
    monkeypatch.setenv("JOBS_BACKEND", backend or "")
    app = importlib.reload(canvas_jobs).app
    app.use(broker=broker_url)
    worker = Worker(ThreadPool(2, app), WorkerOptions(queues=[queue], lease=10.0, control=False))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    assert worker.ready.wait(30.0)
    yield
    worker.stop()
    thread.join(30.0)
    app.close()
    assert not thread.is_alive()


@pytest.fixture
def task(app, queue):
    """Signatures of the tasks in the worker, made by a program that has none of them."""

    def make(name, *args, **options):
        return app.signature(f"canvas.{name}", args, queue=queue, **options)

    return make


@pytest.fixture
def notes(tmp_path):
    """The file that tasks write to, and what is in it."""

    class Notes:
        path = str(tmp_path / "notes")

        def wait(self, count=1):
            eventually(lambda: len(self.lines()) >= count, 30.0, what=f"{count} notes")
            return self.lines()

        def lines(self):
            file = tmp_path / "notes"
            return file.read_text().splitlines() if file.exists() else []

    return Notes()


@pytest.mark.usefixtures("worker")
class TestFollowing:
    def test_a_chain_passes_each_result_on(self, task):
        result = (task("add", 1, 2) | task("add", 3) | task("add", 4)).delay()
        assert result.get(30) == 10
        assert result.parent.get(30) == 6 and result.parent.parent.get(30) == 3

    def test_a_link_gets_the_result(self, task, notes):
        task("add", 1, 2).apply_async(link=[task("note", notes.path), task("note", notes.path)])
        assert notes.wait(2) == ["3", "3"]

    def test_the_error_handler_of_the_guide_knows_state_info_and_arguments(self, task, notes):
        handler = task("error_handler", notes.path)
        result = task("divide", 1, 0).apply_async(link_error=handler)
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            result.get(30)
        assert notes.wait() == [f"{result.id} FAILURE division by zero [1, 0] {{}}"]

    def test_an_error_handler_of_three_arguments_gets_request_error_and_traceback(
        self, task, notes
    ):
        handler = task("error_handler_of_three", notes.path)
        result = task("divide", 1, 0).apply_async(link_error=handler)
        error = "division by zero"
        assert notes.wait() == [f"{result.id} {error} [1, 0] ZeroDivisionError: {error}"]

    def test_a_failure_in_a_chain_fails_all_that_would_have_followed(self, task, notes):
        whole = task("divide", 1, 0) | task("add", 1) | task("add", 2)
        whole.link_error(task("error_handler", notes.path))
        result = whole.delay()
        for waiting in (result, result.parent, result.parent.parent):
            with pytest.raises(ZeroDivisionError):
                waiting.get(30)
        assert len(notes.wait()) == 1 and notes.lines()[0].startswith(result.parent.parent.id)

    def test_a_group_gives_a_list(self, task):
        result = group(task("add", number, number) for number in range(5)).delay()
        assert result.get(30) == [0, 2, 4, 6, 8]
        assert result.successful() and len(result) == 5

    def test_a_task_is_retried_under_its_id(self, task):
        result = task("flaky", 2).delay()
        assert result.get(30) == [result.id, 2]

    def test_a_task_is_retried_only_so_often(self, task, notes):
        result = task("flaky", 9).apply_async(link_error=task("error_handler", notes.path))
        with pytest.raises(ConnectionError, match="away"):
            result.get(30)
        assert len(notes.wait()) == 1

    def test_a_hook_of_a_base_class_sees_the_arguments(self, task, notes):
        result = task("fails", 3, notes.path).delay()
        assert notes.wait() == [f"{result.id} not 3 [3]"]

    def test_a_task_can_give_its_message_back_or_up(self, app, queue, task):
        with pytest.raises(RemoteError, match="Reject: no use"):
            task("reject", True).delay().get(30)
        eventually(lambda: app.connection().inspect(f"{queue}.dlq").ready == 1)

    def test_what_was_acked_before_its_run_has_links_too(self, task, notes):
        task("add_at_most_once", 1, 2).apply_async(link=task("note", notes.path))
        assert notes.wait() == ["3"]

    def test_a_coroutine_is_a_task_like_others(self, task, notes):
        first = task("add", 1, 2)
        result = (first | task("later") | task("note", notes.path)).delay()
        assert notes.wait() == [str([result.parent.id, 3])]

    def test_a_child_knows_its_parent_and_root(self, task, queue):
        result = task("family", queue).delay()
        own, root, child = result.get(30)
        assert own == root == result.id
        assert [one.id for one in result.children] == [child]

    def test_an_unknown_task_has_error_links_too(self, app, queue, task, notes):
        handler = task("error_handler", notes.path)
        result = app.send_task("canvas.nothing", (1,), queue=queue, link_error=handler)
        with pytest.raises(RemoteError, match="NotRegistered"):
            result.get(30)
        assert re.match(rf"{result.id} FAILURE NotRegistered: .* \[1\]", notes.wait()[0])

    def test_what_expired_is_not_run(self, task, app):
        late = task("add", 1, 2).apply_async(expires=0.001, headers={"x": 1})
        assert task("add", 1, 2).delay().get(30) == 3
        assert not late.successful()

    def test_celerys_map_and_chunks_run_here(self, app, queue):
        inner = app.signature("canvas.add")
        made = app.signature(
            "celery.starmap", kwargs={"task": inner, "it": [[1, 2], [3, 4]]}, queue=queue
        )
        assert made.delay().get(30) == [3, 7]


@pytest.mark.usefixtures("processes")
def test_what_follows_a_task_in_a_process_is_sent_by_the_worker(task, notes):
    whole = task("flaky", 1) | group(task("note", notes.path), task("note", notes.path))
    whole.delay().get(30)
    assert notes.wait(2)[0].endswith("', 1]")


@pytest.mark.usefixtures("processes")
def test_a_task_that_is_killed_for_its_time_limit_has_error_links_too(task, notes):
    slow = task("sleep", 60, time_limit=0.3, link_error=[task("error_handler", notes.path)])
    result = (slow | task("add", 1)).delay()
    with pytest.raises(RemoteError, match="TimeLimitExceeded"):
        result.get(30)
    assert "TimeLimitExceeded" in notes.wait()[0] and "[60]" in notes.lines()[0]


@pytest.mark.usefixtures("processes")
def test_a_task_that_kills_its_process_three_times_has_error_links_too(task, notes):
    result = task("die").apply_async(link_error=task("error_handler", notes.path))
    with pytest.raises(RemoteError, match="WorkerLostError: crash loop"):
        result.get(30)
    assert "crash loop" in notes.wait()[0]


@pytest.mark.usefixtures("worker")
class TestChords:
    """Counted in the broker's own store, or in one beside it."""

    @pytest.fixture(params=["own", "rpc"])
    def backend(self, request, broker_url, tmp_path):
        if broker_url.startswith("amqp"):
            return f"sqlite:///{tmp_path}/results.db"
        return None if request.param == "own" else "rpc://"

    def test_the_body_gets_the_results_in_order(self, task):
        header = [task("add", number, number) for number in range(20)]
        assert chord(header, task("total")).delay().get(30) == 380

    def test_a_chord_in_a_chain(self, task):
        whole = (
            task("add", 1, 1)
            | group(task("add", 1), task("add", 2))
            | task("total")
            | task("add", 5)
        )
        assert whole.delay().get(30) == 12

    def test_a_failed_part_fails_the_body_with_its_error_links(self, task, notes):
        body = task("total").on_error(task("error_handler", notes.path)) | task("add", 1)
        result = chord([task("divide", 1, 0), task("add", 1, 1)], body).delay()
        with pytest.raises(RemoteError, match="ChordError: .*division by zero"):
            result.get(30)
        assert "ChordError" in notes.wait()[0]

    def test_a_task_can_be_replaced_by_a_chord(self, task, queue):
        assert (task("fan_out", [1, 2, 3], queue) | task("add", 1)).delay().get(30) == 13


class TestExpired:
    """No broker drops a task in silence: the worker that comes too late says that it did."""

    @pytest.fixture
    def backend(self, broker_url, tmp_path):
        return f"sqlite:///{tmp_path}/results.db" if broker_url.startswith("amqp") else None

    def test_who_waits_for_what_expired_before_a_worker_came_hears_of_it(self, request, task):
        late = task("add", 1, 2).apply_async(expires=0.2)
        parts = [task("add", 1, 2, expires=0.2), task("add", 3, 4)]
        whole = chord(parts, task("total")).delay()
        time.sleep(0.4)
        request.getfixturevalue("worker")
        with pytest.raises(RemoteError, match="expired"):
            late.get(30)
        assert late.state == "REVOKED"
        with pytest.raises(RemoteError, match="ChordError: .*expired"):
            whole.get(30)


def test_a_chord_without_a_store_is_refused_at_the_call(app, queue, broker_url):
    part = app.signature("canvas.add", (1, 2), queue=queue)
    if broker_url.startswith("amqp"):
        assert app.backend in RPC
        with pytest.raises(Unsupported, match="backend"):
            chord([part], part).delay()
    else:
        assert chord([part], part).delay().id

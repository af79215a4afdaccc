"""Tasks beside celery, as it is published, on RabbitMQ: each side sends, each side works.

One worker of ours and one of celery's, a client of celery's and one of ours, all for the whole
module. Each worker has a queue of its own, which the other side declared first; two more they
share, one declared by either side.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from queue_core import Connection, Exchange, Queue, RemoteError
from queue_core.testing.eventually import eventually
from queue_core.worker import App, chain, group
from tests.acceptance.conftest import WorkerProcess

pytestmark = pytest.mark.timeout(180)
SIDE = Path(__file__).parent / "celery_side"
WITHIN = 30.0
KINDS = ["datetime", "date", "time", "Decimal", "UUID", "bytes", "bytes"]


class Place(NamedTuple):
    """The names of this run: queues, and nodes."""

    broker: str
    ours: str
    theirs: str
    shared: tuple[str, str]
    ranked: str
    our_node: str
    their_node: str

    def environment(self, home: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**clean, "BROKER": self.broker, "HOME_QUEUE": home}


@pytest.fixture(scope="module")
def place(amqp_url: str) -> Iterator[Place]:
    run = f"qc-test-beside-{uuid.uuid4().hex[:8]}"
    place = Place(
        amqp_url,
        f"{run}-ours",
        f"{run}-theirs",
        (f"{run}-shared-1", f"{run}-shared-2"),
        f"{run}-ranked",
        f"celery@{run}-ours",
        f"celery@{run}-theirs",
    )
    yield place
    with Connection(amqp_url) as connection:
        queues = (place.ours, f"{place.ours}.dlq", place.theirs, f"{place.theirs}-more")
        for name in (*queues, *place.shared, place.ranked, "celery"):
            for entity in (Queue(name), Exchange(name)):
                connection.delete(entity)


class CeleryClient:
    """A program with celery's client, which does what it is told."""

    def __init__(self, python: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [python, "beside.py"],
            cwd=SIDE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, source: str) -> Any:
        """Run some Python there and return the value of its last expression."""
        said = self.ask(source)
        assert "raised" not in said, said
        return said["value"]

    def raised(self, source: str) -> list[str]:
        """Run what must raise; return module, name and text of the exception."""
        said = self.ask(source)
        assert "raised" in said, said
        return said["raised"]

    def ask(self, source: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(source) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "celery's client has ended"
        return json.loads(line)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def celery(peers: Path, place: Place) -> Iterator[CeleryClient]:
    """Celery's client, whose tasks are for our worker."""
    client = CeleryClient(peers / "python", place.environment(place.ours))
    client(f"T = {WITHIN}; OURS, THEIRS = {place.ours!r}, {place.theirs!r}")
    yield client
    client.end()


@pytest.fixture(scope="module")
def ours(place: Place) -> Iterator[App]:
    """Our client, whose tasks are for celery's worker."""
    app = App("beside", broker=place.broker, backend="rpc://", default_queue=place.theirs)
    app.config_from_object({"control_exchange": "celery"})
    yield app
    app.close()


class Workers(NamedTuple):
    """Both, and the handles of what was sent before they came."""

    ours: WorkerProcess
    theirs: subprocess.Popen[bytes]
    their_log: Path
    early: list[Any]


@pytest.fixture(scope="module", autouse=True)
def workers(
    peers: Path,
    place: Place,
    celery: CeleryClient,
    ours: App,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workers]:
    """Ours, and then theirs, which greets all others."""
    folder = tmp_path_factory.mktemp("beside")
    first, second = place.shared
    celery(f"early = [add.delay(1, 2), add.apply_async((3, 4), queue={first!r})]")
    early = [
        ours.send_task("beside.add", (5, 6)),
        ours.send_task("beside.add", (7, 8), queue=second),
    ]
    arguments = ["-A", "beside_jobs:app", "-c", "2", "--lease", "10s", "-n", place.our_node]
    arguments += ["-Q", ",".join([place.ours, *place.shared])]
    environment = {
        **place.environment(place.ours),
        "QUEUE_CORE_URL": place.broker,
        "RANKED_QUEUE": place.ranked,
    }
    worker = WorkerProcess(folder / "ours.log", arguments, environment)
    program = ["celery", "-A", "beside", "worker", "-c", "2", "-l", "info", "-n", place.their_node]
    program += ["-Q", ",".join([place.theirs, *place.shared])]
    log = folder / "theirs.log"
    try:
        worker.ready()
        with log.open("wb") as output:
            theirs = subprocess.Popen(
                [peers / program[0], *program[1:]],
                cwd=SIDE,
                env=place.environment(place.theirs),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
    except BaseException:
        worker.kill()
        raise
    try:
        eventually(lambda: theirs.poll() is not None or " ready." in log.read_text(), 2 * WITHIN)
        assert theirs.poll() is None, log.read_text()
        yield Workers(worker, theirs, log, early)
    finally:
        worker.kill()
        theirs.kill()
        theirs.wait()


class Notes:
    """A file that tasks write to, and what is in it."""

    def __init__(self, path: Path) -> None:
        self._file = path
        self.path = str(path)

    def wait(self, count: int = 1) -> list[Any]:
        eventually(lambda: len(self.lines()) >= count, WITHIN, what=f"{count} notes")
        return self.lines()

    def lines(self) -> list[Any]:
        if not self._file.exists():
            return []
        return [json.loads(line) for line in self._file.read_text().splitlines()]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
def task(ours: App) -> Callable[..., Any]:
    """Signatures of the tasks in the workers, made by a program that has none of them."""
    return lambda name, *args, **options: ours.signature(f"beside.{name}", args, **options)


def test_each_side_takes_from_queues_that_the_other_declared(
    workers: Workers, celery: CeleryClient
) -> None:
    assert celery("[result.get(timeout=T) for result in early]") == [3, 7]
    assert [result.get(WITHIN) for result in workers.early] == [11, 15]


class TestTheirClient:
    """Tasks that celery's client sends, and our worker runs."""

    def test_a_task_knows_what_the_client_said(self, celery: CeleryClient) -> None:
        celery("result = about.apply_async(headers={'mine': 5}, time_limit=50, soft_time_limit=40)")
        assert celery("result.get(timeout=T)") == {
            "side": "ours",
            "id": celery("result.id"),
            "root_id": celery("result.id"),
            "parent_id": None,
            "group": None,
            "group_index": None,
            "reply_to": celery("app.thread_oid"),
            "correlation_id": celery("result.id"),
            "stamps": {},
            "timelimit": [50, 40],
            "mine": 5,
            "priority": 0,
        }

    def test_a_failure_is_the_exception_with_its_traceback(self, celery: CeleryClient) -> None:
        celery("result = fail.delay('é')")
        assert celery.raised("result.get(timeout=T)") == ["builtins", "ValueError", "('é', 7)"]
        state, args, trace = celery("[result.state, result.result.args, result.traceback]")
        assert (state, args) == ("FAILURE", ["é", 7])
        assert "raise ValueError(text, 7)" in trace and trace.endswith("ValueError: ('é', 7)\n")

    def test_a_chain_has_its_results_and_parents(self, celery: CeleryClient) -> None:
        celery("result = chain(add.s(1, 2), add.s(3), about.s())()")
        told = celery("result.get(timeout=T)")
        assert celery("[result.parent.get(timeout=T), result.parent.parent.get(timeout=T)]") == [
            6,
            3,
        ]
        ids = celery("[result.parent.id, result.parent.parent.id]")
        assert [told["parent_id"], told["root_id"]] == ids
        assert celery("[child.id for child in result.parent.children]") == [told["id"]]

    def test_a_failure_ends_the_chain(self, celery: CeleryClient) -> None:
        celery("result = chain(fail.s('no'), add.s(3), add.s(4))()")
        assert celery.raised("result.get(timeout=T)")[:2] == ["builtins", "ValueError"]
        assert celery("result.parent.parent.state") == "FAILURE"

    def test_a_group_is_a_list(self, celery: CeleryClient) -> None:
        celery("result = group(about.s(), about.s(), add.s(1, 1))()")
        first, second, number = celery("result.get(timeout=T)")
        assert number == 2 and first["group"] == second["group"] == celery("result.id")
        assert [first["group_index"], second["group_index"]] == [0, 1]

    def test_celery_itself_refuses_a_chord_by_rpc(self, celery: CeleryClient) -> None:
        kind, text = celery.raised("chord([add.s(1, 1), add.s(2, 2)])(echo.s())")[1:]
        assert kind == "NotImplementedError" and "chord" in text

    def test_a_chord_that_celery_counts_in_its_own_backend_cannot_go_on(
        self, celery: CeleryClient, workers: Workers, redis_broker: str
    ) -> None:
        url, _, prefix = redis_broker.partition("?prefix=")
        celery(f"stored = Celery('stored', broker=os.environ['BROKER'], backend={url!r})")
        where = f"result_backend_transport_options={{'global_keyprefix': '{{{prefix}}}:'}}"
        celery(f"stored.conf.update(task_default_queue=OURS, {where})")
        celery("one, total = (stored.signature(f'beside.{name}') for name in ('side', 'echo'))")
        celery("ended = chord([one, one], app=stored)(total)")
        why = "its sender counts its parts elsewhere, as celery's programs do"
        eventually(lambda: workers.ours.log.count(why) == 2, WITHIN)
        celery("stored.backend.client.close(); stored.close()")

    def test_map_starmap_and_chunks_are_run(self, celery: CeleryClient) -> None:
        celery("several = [about.map([1]), add.starmap([(1, 2), (3, 4)])]")
        several, chunks = "[one.delay() for one in several]", "add.chunks([(1, 1), (2, 2)], 1)()"
        [[mapped], starred] = celery(f"[one.get(timeout=T) for one in {several}]")
        assert mapped["side"] == "ours" and starred == [3, 7]
        assert celery(f"{chunks}.get(timeout=T)") == [[2], [4]]

    def test_a_link_gets_the_result(self, celery: CeleryClient, notes: Notes) -> None:
        path = repr(notes.path)
        celery(f"add.apply_async((1, 2), link=[note_last.s({path}), note.si({path}, 'x')])")
        assert sorted(notes.wait(2), key=str) == [["ours", "x"], ["ours", 3]]

    def test_error_links_of_both_kinds_get_what_they_can_take(
        self, celery: CeleryClient, notes: Notes
    ) -> None:
        path = repr(notes.path)
        links = f"[old_errback.s({path}), new_errback.s({path})]"
        failed = celery(f"fail.apply_async(('no',), link_error={links}).id")
        new, old = sorted(notes.wait(2), key=len, reverse=True)
        assert old == ["ours", failed]
        assert new == ["ours", failed, ["no"], "ValueError", "('no', 7)", "'no', 7)"]

    def test_retries_go_on_under_the_same_id(self, celery: CeleryClient) -> None:
        celery("result = flaky.delay(2)")
        assert celery("result.get(timeout=T)") == ["ours", celery("result.id"), 2]
        assert celery.raised("flaky.delay(9).get(timeout=T)")[1:] == ["OSError", "not yet"]

    @pytest.mark.parametrize(
        "when", ["countdown=1", "eta=__import__('datetime').datetime.now(TZ) + DELTA"]
    )
    def test_nothing_runs_before_its_time(self, celery: CeleryClient, when: str) -> None:
        celery("import datetime as d, time; TZ, DELTA = d.timezone.utc, d.timedelta(seconds=1)")
        celery(f"begun = time.time(); result = side.apply_async({when})")
        assert celery("result.get(timeout=T)") == "ours"
        assert celery("time.time() - begun") >= 0.99

    def test_what_expired_is_revoked(self, celery: CeleryClient) -> None:
        raised = celery.raised("side.apply_async(countdown=0.3, expires=0.1).get(timeout=T)")
        assert raised[:2] == ["celery.exceptions", "TaskRevokedError"]

    def test_what_is_revoked_before_its_time_does_not_run(
        self, celery: CeleryClient, notes: Notes
    ) -> None:
        celery(f"result = note.apply_async(({notes.path!r},), countdown=2); result.revoke()")
        raised = celery.raised("result.get(timeout=T)")
        assert raised[:2] == ["celery.exceptions", "TaskRevokedError"] and not notes.lines()
        assert celery("result.state") == "REVOKED"

    def test_what_runs_can_be_terminated(self, celery: CeleryClient, tmp_path: Path) -> None:
        path = tmp_path / "held"
        celery(f"result = elsewhere('beside.hold', {str(path)!r})")
        eventually(path.exists, WITHIN)
        eventually(lambda: celery("result.state") == "STARTED", WITHIN)
        celery("result.revoke(terminate=True)")
        raised = celery.raised("result.get(timeout=T)")
        assert raised[:2] == ["celery.exceptions", "TaskRevokedError"]

    def test_a_task_may_say_how_far_it_is(self, celery: CeleryClient, tmp_path: Path) -> None:
        path = tmp_path / "held"
        celery(f"result = elsewhere('beside.progress', {str(path)!r})")
        eventually(lambda: celery("result.state") == "PROGRESS", WITHIN)
        assert celery("result.info") == {"done": 3, "of": "ours"}
        Path(f"{path}.go").touch()
        assert celery("[result.get(timeout=T), result.state]") == ["ours", "SUCCESS"]

    def test_limits_are_celerys_exceptions(self, celery: CeleryClient, tmp_path: Path) -> None:
        path = repr(str(tmp_path / "held"))
        celery(
            f"soft, hard = [hold.apply_async(({path},), **{{name: 0.3}}) for name in "
            "('soft_time_limit', 'time_limit')]"
        )
        celery("from celery import exceptions")
        celery(
            "def caught(result):\n"
            "    try: result.get(timeout=T)\n"
            "    except Exception as error: return error"
        )
        for result, name in (
            ("soft", "SoftTimeLimitExceeded"),
            ("hard", "TimeLimitExceeded"),
            ("app.send_task('beside.give_up')", "MaxRetriesExceededError"),
        ):
            assert celery(f"isinstance(caught({result}), exceptions.{name})") is True

    def test_a_task_that_nobody_knows_is_not_registered(self, celery: CeleryClient) -> None:
        raised = celery.raised("app.send_task('beside.nothing').get(timeout=T)")
        assert raised[:2] == ["celery.exceptions", "NotRegistered"]

    def test_a_task_has_children_and_may_be_replaced(self, celery: CeleryClient) -> None:
        celery("result = family.delay()")
        assert [celery("result.get(timeout=T)")] == celery("[one.id for one in result.children]")
        celery("result = family_of_two.delay()")
        assert celery("result.get(timeout=T)") == celery("[one.id for one in result.children]")
        assert celery("replaced.delay(4).get(timeout=T)") == 5
        assert celery("chain(replaced.s(4), add.s(1))().get(timeout=T)") == 6

    @pytest.mark.parametrize("compression", ["gzip", "zlib"])
    def test_bodies_may_be_compressed_and_large(
        self, celery: CeleryClient, compression: str
    ) -> None:
        celery("sent = ''.join(f'ä€😀{n * n}' for n in range(50_000))")
        told = f"echo.apply_async((sent,), compression={compression!r}).get(timeout=T)"
        assert celery(f"{told} == [[sent], {{}}]") is True

    @pytest.mark.parametrize(
        ("how", "remedy"),
        [
            ("serializer='pickle'", "add 'pickle' to accept"),
            ("compression='bzip2'", "can use zlib"),
        ],
    )
    def test_what_cannot_be_read_is_refused_politely(
        self, celery: CeleryClient, how: str, remedy: str
    ) -> None:
        celery(f"result = add.apply_async((1, 2), {how})")
        kind, text = celery.raised("result.get(timeout=T)")[1:]
        assert kind == "ContentDisallowed" and remedy in text
        assert celery("add.delay(1, 2).get(timeout=T)") == 3

    def test_dates_decimals_uuids_and_bytes_are_what_they_were(self, celery: CeleryClient) -> None:
        celery("import datetime as d, decimal, uuid")
        celery("now, number = d.datetime.now(d.timezone.utc), decimal.Decimal('1.50')")
        celery("sent = [now, now.date(), now.time(), number, uuid.uuid4(), 'é'.encode(), b'\\xff']")
        celery("kinds_, *back = chain(kinds.s(*sent))().get(timeout=T)")
        assert celery("kinds_") == KINDS
        assert celery("back == sent") is True
        celery("late = kinds.si(*sent).set(expires=now + d.timedelta(1))")
        assert celery("chain(echo.si(1), late)().get(timeout=T)[1:] == sent") is True

    def test_protocol_1_is_read(self, celery: CeleryClient, notes: Notes) -> None:
        celery("app.conf.task_protocol = 1")
        try:
            celery(f"result = add.apply_async((1, 2), link=note_last.s({notes.path!r}))")
            assert celery("result.get(timeout=T)") == 3 and notes.wait() == [["ours", 3]]
            assert celery("chain(add.s(1, 2), add.s(3))().get(timeout=T)") == 6
            assert celery.raised("fail.delay('x').get(timeout=T)")[1] == "ValueError"
            later = "side.apply_async(countdown=0.2).get(timeout=T)"
            assert celery(later) == "ours"
        finally:
            celery("app.conf.task_protocol = 2")

    def test_stamps_are_carried_along(self, celery: CeleryClient) -> None:
        celery("stamped = chain(add.s(1, 1), about.s()); stamped.stamp(trace='t1')")
        assert celery("stamped().get(timeout=T)['stamps']") == {"trace": "t1"}

    def test_a_queue_with_priorities_is_taken_from(
        self, celery: CeleryClient, place: Place
    ) -> None:
        celery("from kombu import Queue")
        celery(f"ranked = Queue({place.ranked!r}, queue_arguments={{'x-max-priority': 9}})")
        celery("results = [about.apply_async(queue=ranked, priority=n) for n in (1, 9, 5)]")
        control = f"destination=[{place.our_node!r}], reply=True, timeout=T, limit=1"
        said = celery(f"app.control.add_consumer({place.ranked!r}, {control})")
        assert said == [{place.our_node: {"ok": f"add consumer {place.ranked}"}}]
        priorities = celery("[result.get(timeout=T)['priority'] for result in results]")
        assert priorities == [1, 9, 5]

    def test_celerys_own_default_queue_is_taken_from(
        self, celery: CeleryClient, place: Place
    ) -> None:
        celery("plain = Celery('plain', broker=os.environ['BROKER'], backend='rpc://')")
        celery("result = plain.send_task('beside.add', (20, 22))")
        control = f"destination=[{place.our_node!r}], reply=True, timeout=T, limit=1"
        celery(f"app.control.add_consumer('celery', {control})")
        assert celery("result.get(timeout=T)") == 42
        celery(f"app.control.cancel_consumer('celery', {control})")


class TestOurClient:
    """Tasks that our client sends, and celery's worker runs."""

    def test_a_task_knows_what_the_client_said(self, task: Callable[..., Any]) -> None:
        limits = {"time_limit": 50, "soft_time_limit": 40}
        result = task("about").apply_async(headers={"mine": 5}, priority=3, **limits)
        told = result.get(WITHIN)
        assert told.pop("reply_to").startswith("qc.reply.")
        assert told == {
            "side": "theirs",
            "id": result.id,
            "root_id": result.id,
            "parent_id": None,
            "group": None,
            "group_index": None,
            "correlation_id": result.id,
            "stamps": {},
            "timelimit": [50, 40],
            "mine": 5,
            "priority": 3,
        }

    def test_what_our_message_leaves_out_is_as_if_it_had_been_said(
        self, celery: CeleryClient, place: Place, task: Callable[..., Any]
    ) -> None:
        theirs = f"request_says.apply_async(queue={place.theirs!r}).get(timeout=T)"
        assert task("request_says").delay().get(WITHIN) == celery(theirs)

    def test_a_failure_is_the_exception_with_its_traceback(self, task: Callable[..., Any]) -> None:
        result = task("fail", "é").delay()
        with pytest.raises(ValueError, match="é") as caught:
            result.get(WITHIN)
        assert caught.value.args == ("é", 7) and result.state == "FAILURE"
        assert "raise ValueError(text, 7)" in result.traceback

    def test_a_chain_has_its_results_and_parents(self, task: Callable[..., Any]) -> None:
        result = chain(task("add", 1, 2), task("add", 3), task("about")).delay()
        told = result.get(WITHIN)
        assert result.parent.get(WITHIN) == 6 and result.parent.parent.get(WITHIN) == 3
        assert [told["parent_id"], told["root_id"]] == [result.parent.id, result.parent.parent.id]
        assert [child.id for child in result.parent.children] == [result.id]

    def test_a_failure_ends_the_chain(self, task: Callable[..., Any]) -> None:
        result = chain(task("fail", "no"), task("add", 3), task("add", 4)).delay()
        for one in (result, result.parent, result.parent.parent):
            with pytest.raises(ValueError, match="no"):
                one.get(WITHIN)

    def test_a_group_is_a_list(self, task: Callable[..., Any]) -> None:
        result = group(task("about"), task("about"), task("add", 1, 1)).delay()
        first, second, number = result.get(WITHIN)
        assert number == 2 and first["group"] == second["group"] == result.id
        assert [first["group_index"], second["group_index"]] == [0, 1]

    def test_a_link_gets_the_result(self, task: Callable[..., Any], notes: Notes) -> None:
        links = [task("note_last", notes.path), task("note", notes.path, "x", immutable=True)]
        task("add", 1, 2).apply_async(link=links)
        assert sorted(notes.wait(2), key=str) == [["theirs", "x"], ["theirs", 3]]

    def test_error_links_of_both_kinds_get_what_they_can_take(
        self, task: Callable[..., Any], notes: Notes
    ) -> None:
        links = [task("old_errback", notes.path), task("new_errback", notes.path)]
        failed = task("fail", "no").apply_async(link_error=links)
        new, old = sorted(notes.wait(2), key=len, reverse=True)
        assert old == ["theirs", failed.id]
        assert new == ["theirs", failed.id, ["no"], "ValueError", "('no', 7)", "'no', 7)"]

    def test_retries_go_on_under_the_same_id(self, task: Callable[..., Any]) -> None:
        result = task("flaky", 2).delay()
        assert result.get(WITHIN) == ["theirs", result.id, 2]
        with pytest.raises(OSError, match="not yet"):
            task("flaky", 9).delay().get(WITHIN)

    def test_nothing_runs_before_its_time(self, task: Callable[..., Any]) -> None:
        due = datetime.now(UTC) + timedelta(seconds=1)
        results = [task("side").apply_async(**when) for when in ({"countdown": 1}, {"eta": due})]
        assert [result.get(WITHIN) for result in results] == ["theirs", "theirs"]
        assert datetime.now(UTC) >= due

    def test_what_is_revoked_before_its_time_does_not_run(
        self, task: Callable[..., Any], notes: Notes
    ) -> None:
        result = task("note", notes.path).apply_async(countdown=2)
        result.revoke()
        with pytest.raises(RemoteError, match="TaskRevokedError"):
            result.get(WITHIN)
        assert not notes.lines()

    def test_what_is_terminated_is_revoked(
        self, place: Place, ours: App, task: Callable[..., Any], tmp_path: Path
    ) -> None:
        path = tmp_path / "held"
        result = task("hold", str(path)).delay()
        eventually(path.exists, WITHIN)
        eventually(lambda: result.state == "STARTED", WITHIN)
        result.revoke(terminate=True)
        with pytest.raises(RemoteError, match="TaskRevokedError"):
            result.get(WITHIN)
        assert result.state == "REVOKED"

    def test_a_task_may_say_how_far_it_is(self, task: Callable[..., Any], tmp_path: Path) -> None:
        path = tmp_path / "held"
        result = task("progress", str(path)).delay()
        eventually(lambda: result.state == "PROGRESS", WITHIN)
        assert result.info == {"done": 3, "of": "theirs"}
        Path(f"{path}.go").touch()
        assert (result.get(WITHIN), result.state) == ("theirs", "SUCCESS")

    def test_limits_end_the_task(self, task: Callable[..., Any], tmp_path: Path) -> None:
        for limit, kind in (("soft_time_limit", "Soft"), ("time_limit", "Time")):
            with pytest.raises(RemoteError, match=f"{kind}.*LimitExceeded"):
                task("hold", str(tmp_path / "held")).apply_async(**{limit: 1}).get(WITHIN)

    def test_a_task_that_nobody_knows_is_not_registered(self, task: Callable[..., Any]) -> None:
        with pytest.raises(RemoteError, match="NotRegistered"):
            task("nothing").delay().get(WITHIN)

    def test_a_task_has_children_and_may_be_replaced(self, task: Callable[..., Any]) -> None:
        result = task("family").delay()
        assert [result.get(WITHIN)] == [child.id for child in result.children]
        result = task("family_of_two").delay()
        assert result.get(WITHIN) == [child.id for child in result.children]
        # Over rpc celery loses the result of a task that is replaced, unless it is one of a chain.
        assert (task("replaced", 4) | task("add", 1)).delay().get(WITHIN) == 6

    def test_map_starmap_and_chunks_are_run(self, ours: App) -> None:
        add = ours.task(name="beside.add")(lambda x, y: x + y)
        assert add.starmap([(1, 2), (3, 4)]).delay().get(WITHIN) == [3, 7]
        assert add.chunks([(1, 1), (2, 2)], 1).delay().get(WITHIN) == [[2], [4]]

    def test_dates_decimals_uuids_and_bytes_are_what_they_were(
        self, task: Callable[..., Any]
    ) -> None:
        now = datetime.now(UTC)
        sent = [now, now.date(), now.time(), Decimal("1.50"), uuid.uuid4(), "é".encode(), b"\xff"]
        kinds, *back = task("kinds", *sent).delay().get(WITHIN)
        assert kinds == KINDS and back == sent
        late = task("kinds", *sent, immutable=True, expires=now + timedelta(days=1))
        assert chain(task("echo", 1), late).delay().get(WITHIN)[1:] == sent

    def test_bodies_may_be_compressed_and_large(self, task: Callable[..., Any]) -> None:
        sent = "".join(f"ä€😀{n * n}" for n in range(50_000))
        for how in ({}, {"compression": "zlib"}):
            assert task("echo", sent).apply_async(**how).get(WITHIN) == [[sent], {}]


class TestTogether:
    """Both workers on the same queues, and work that goes to and fro."""

    def test_both_work_on_one_queue(
        self, place: Place, celery: CeleryClient, task: Callable[..., Any]
    ) -> None:
        for queue in place.shared:
            ran: Counter[str] = Counter()

            def both(queue: str = queue, ran: Counter[str] = ran) -> bool:
                more = f"[side.apply_async((0.03,), queue={queue!r}) for _ in range(15)]"
                celery(f"theirs = {more}")
                results = [task("side", 0.03, queue=queue).delay() for _ in range(15)]
                ran.update(celery("[result.get(timeout=T) for result in theirs]"))
                ran.update(result.get(WITHIN) for result in results)
                return ran.keys() == {"ours", "theirs"}

            eventually(both, WITHIN, what="each worker has had some")
            assert ran.total() % 30 == 0

    def test_a_chain_goes_to_and_fro(
        self, celery: CeleryClient, place: Place, task: Callable[..., Any]
    ) -> None:
        on = [f"about.s().set(queue={queue})" for queue in ("OURS", "THEIRS", "OURS")]
        celery(f"result = chain({', '.join(on)})()")
        last, way = celery("result.get(timeout=T)"), "[one.get(timeout=T) for one in (p, p.parent)]"
        way = celery(f"p = result.parent; {way}")
        assert [last["side"], *(one["side"] for one in way)] == ["ours", "theirs", "ours"]
        assert last["root_id"] == way[0]["root_id"] == way[1]["id"]
        queues = (place.theirs, place.ours, place.theirs)
        result = chain(task("about", queue=queue) for queue in queues).delay()
        assert result.get(WITHIN)["side"] == "theirs"
        assert result.parent.get(WITHIN)["side"] == "ours"

    def test_links_cross_over(
        self, celery: CeleryClient, place: Place, task: Callable[..., Any], notes: Notes
    ) -> None:
        theirs = f"note_last.s({notes.path!r}).set(queue=THEIRS)"
        failed = f"old_errback.s({notes.path!r}).set(queue=THEIRS)"
        celery(f"add.apply_async((1, 2), link={theirs})")
        their_id = celery(f"fail.apply_async(('x',), link_error={failed}).id")
        assert sorted(notes.wait(2), key=str) == [["theirs", their_id], ["theirs", 3]]

    def test_their_error_link_reaches_our_worker(
        self, place: Place, task: Callable[..., Any], notes: Notes
    ) -> None:
        link = task("old_errback", notes.path, queue=place.ours)
        failed = task("fail", "x").apply_async(link_error=link)
        assert notes.wait() == [["ours", failed.id]]


def test_messages_say_what_celerys_say(celery: CeleryClient, ours: App, place: Place) -> None:
    """Every header that says something, and every property; ours may say more.

    But for `expiration`: a task that the broker drops is one that nobody hears of again.
    """
    name = f"{place.ranked}-raw"
    with Connection(place.broker) as connection:
        connection.declare(ours.queue(name))
        try:
            how = "priority=4, expires=60, headers={'mine': 1}, shadow='x', ignore_result=True"
            celery(f"add.apply_async((1,), {{'y': 'é'}}, queue={name!r}, time_limit=9, {how})")
            said = {"headers": {"mine": 1}, "shadow": "x", "ignore_result": True, "time_limit": 9}
            given = {"queue": name, "priority": 4, "expires": 60, **said}
            ours.send_task("beside.add", (1,), {"y": "é"}, **given)
            consumer = connection.consumer(ours.queue(name))
            theirs, own = (consumer.receive(WITHIN) for _ in range(2))
            assert own is not None and theirs is not None
            own.ack()
            theirs.ack()
        finally:
            connection.delete(Queue(name))
    assert json.loads(own.body) == json.loads(theirs.body)
    differing = {"id", "root_id", "origin", "expires"}
    silent = dict.fromkeys(["eta", "group", "group_index", "parent_id", "stamped_headers"])
    silent |= {"retries": 0, "replaced_task_nesting": 0}
    alike = {key: value for key, value in theirs.headers.items() if key not in differing}
    assert alike.items() <= {**silent, **own.headers}.items() and differing <= own.headers.keys()
    assert not silent.keys() & own.headers.keys()
    assert theirs.headers["origin"].startswith("gen") and own.headers["origin"].startswith("gen")
    for message in (theirs, own):
        left = datetime.fromisoformat(message.headers["expires"]) - datetime.now(UTC)
        assert timedelta(seconds=50) < left < timedelta(seconds=60)
        properties = message.properties
        assert (properties.content_type, properties.content_encoding) == (
            "application/json",
            "utf-8",
        )
        assert properties.priority == 4
        assert properties.correlation_id == message.headers["id"]


class TestControl:
    """Commands, both ways; what celery's client makes of each is in test_worker_control_celery."""

    def test_a_worker_of_celerys_that_starts_is_answered(
        self, celery: CeleryClient, place: Place, workers: Workers
    ) -> None:
        eventually(lambda: "accepted hello" in workers.ours.log, WITHIN)
        log = workers.their_log.read_text()
        assert "mingle: " in log and "failed" not in log.partition("ready.")[0]
        assert "WARNING" not in workers.ours.log.partition("done")[0]
        asked = f"app.control.inspect([{place.our_node!r}], timeout=T, limit=1)"
        told = celery(f"{asked}.hello('celery@other', ['revoked there'])")[place.our_node]
        assert "revoked there" in told["revoked"] and told["clock"] > 0

    def test_celerys_command_line_asks_and_tells_our_worker(
        self, peers: Path, place: Place, tmp_path: Path, celery: CeleryClient
    ) -> None:
        path = tmp_path / "held"
        held = celery(f"held = hold.delay({str(path)!r}); held.id")
        eventually(path.exists, WITHIN)

        def ask(kind: str, *words: str) -> Any:
            command = [peers / "celery", "-A", "beside", kind, "-j", "-t", "10", "-d"]
            done = subprocess.run(
                [*command, place.our_node, *words],
                cwd=SIDE,
                env=place.environment(place.ours),
                capture_output=True,
                text=True,
                timeout=WITHIN * 2,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            return found[place.our_node] if kind == "inspect" else found[0][place.our_node]

        assert [task["id"] for task in ask("inspect", "active")] == [held]
        assert ask("inspect", "query_task", held)[held][0] == "active"
        assert "flagged as revoked" in ask("control", "terminate", "SIGTERM", held)["ok"]
        assert celery.raised("held.get(timeout=T)")[1] == "TaskRevokedError"
        assert held in ask("inspect", "revoked")

    def test_what_celerys_monitors_broadcast_is_no_trouble(
        self, celery: CeleryClient, workers: Workers, place: Place
    ) -> None:
        for command in ("enable_events", "disable_events", "heartbeat"):
            celery(f"app.control.broadcast({command!r})")
        only = f"destination=[{place.our_node!r}], timeout=10"
        assert list(celery(f"app.control.inspect({only}).ping()")) == [place.our_node]
        troubles = [line for line in workers.ours.log.splitlines() if "_events" in line]
        assert troubles == []

    def test_our_control_asks_and_tells_celerys_worker(
        self, ours: App, place: Place, workers: Workers, task: Callable[..., Any], tmp_path: Path
    ) -> None:
        path = tmp_path / "held"
        held = task("hold", str(path)).delay()
        eventually(path.exists, WITHIN)
        node = place.their_node
        asked = ours.control.inspect([node], timeout=WITHIN)
        assert asked.ping()[node] == {"ok": "pong"}
        assert [found["id"] for found in asked.active()[node]] == [held.id]
        assert asked.reserved()[node] == [] and asked.scheduled()[node] == []
        assert "beside.add" in asked.registered()[node]
        assert asked.query_task(held.id)[node][held.id][0] == "active"
        assert asked.conf()[node]["task_default_queue"] == place.theirs
        assert "celery" in asked.report()[node]["ok"]
        assert asked.stats()[node]["pool"]["max-concurrency"] == 2
        assert isinstance(asked.clock()[node]["clock"], int) and node in asked.memsample()
        told: dict[str, Any] = {"destination": [node], "reply": True, "timeout": WITHIN}
        control = ours.control
        assert "rate limit" in control.rate_limit("beside.note", "10/m", **told)[node]["ok"]
        assert "time limits" in control.time_limit("beside.note", 20, 30, **told)[node]["ok"]
        assert "grow" in control.pool_grow(1, **told)[node]["ok"]
        assert "shrink" in control.pool_shrink(1, **told)[node]["ok"]
        more = f"{place.theirs}-more"

        def taken() -> list[str]:
            return [queue["name"] for queue in asked.active_queues()[node]]

        assert more in control.add_consumer(more, **told)[node]["ok"]
        eventually(lambda: more in taken(), WITHIN)  # they answer before they do it
        assert more in control.cancel_consumer(more, **told)[node]["ok"]
        eventually(lambda: more not in taken(), WITHIN)
        assert held.id in control.terminate(held.id, "SIGTERM", **told)[node]["ok"]
        with pytest.raises(RemoteError, match="TaskRevokedError"):
            held.get(WITHIN)
        assert held.id in asked.revoked()[node]

    def test_both_kinds_answer_together(
        self, ours: App, celery: CeleryClient, place: Place, workers: Workers
    ) -> None:
        both = {place.our_node, place.their_node}
        eventually(lambda: both <= set(ours.control.ping(timeout=0.5)), WITHIN)
        asked = "app.control.inspect(timeout=0.5).ping() or {}"
        eventually(lambda: both <= set(celery(asked)), WITHIN)

    def test_either_client_ends_the_others_worker(
        self, ours: App, celery: CeleryClient, place: Place, workers: Workers
    ) -> None:
        celery(f"app.control.shutdown(destination=[{place.our_node!r}])")
        ours.control.shutdown(destination=[place.their_node])
        assert workers.ours.end(WITHIN) == 0 and workers.theirs.wait(WITHIN) == 0
        assert "Traceback" not in workers.ours.log

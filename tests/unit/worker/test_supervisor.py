"""The supervisor of the process pool against children that start, finish, crash and hang."""

import signal
from collections import deque

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from queue_core.worker.outcome import Abandoned, Crashed, Done, Job, Returned, Terminated, TimedOut
from queue_core.worker.pools.pace import LONG, MAX_WINDOW
from queue_core.worker.pools.supervisor import (
    EXIT_TIMEOUT,
    INTERRUPT_GRACE,
    LEAST_COST,
    OVERDUE,
    RESTARTS,
    START_TIMEOUT,
    Supervisor,
)

OURS = "killed by the supervisor"


class FakeChild:
    """What a child process would do."""

    def __init__(self):
        self.ready = False
        self.granted = deque()
        self.running = None
        self.stopping = False
        self.interrupted = None
        self.dead = None  # how it died
        self.told = deque()  # what it said and the supervisor did not hear yet

    def begin(self):
        if self.dead is None and self.ready and self.running is None and self.granted:
            self.running = self.granted.popleft()


class FakeEffects:
    """Children in memory; checks that what the supervisor asks for makes sense."""

    def __init__(self):
        self.children = {}
        self.begun = {}  # ticket -> pid
        self.finished = set()
        self.outcomes = {}
        self.refuse = False
        self.pids = iter(range(1000, 10**9))

    def start(self):
        if self.refuse:
            raise BlockingIOError("no more processes")
        pid = next(self.pids)
        self.children[pid] = FakeChild()
        return pid

    def give(self, pid, jobs):
        child = self.children[pid]
        assert child.ready and not child.stopping
        child.granted.extend(job.ticket for job in jobs)

    def take_back(self, pid):
        child = self.children[pid]
        found = list(child.granted)
        child.granted.clear()
        return found

    def stop(self, pid):
        self.children[pid].stopping = True

    def interrupt(self, pid, ticket, number):
        child = self.children[pid]
        assert not child.granted, "it could begin something else"
        if child.running == ticket:
            child.interrupted = ticket

    def kill(self, pid):
        child = self.children[pid]
        assert not child.granted, "it could begin something else"
        if child.dead is None:
            child.dead = OURS

    def tell(self, ticket, outcome):
        assert ticket not in self.outcomes, "told twice"
        self.outcomes[ticket] = outcome

    # --- what children do ---

    def begin(self, pid):
        child = self.children[pid]
        before = child.running
        child.begin()
        if child.running is not None and child.running != before:
            assert child.running not in self.begun, "begun twice"
            self.begun[child.running] = pid

    def finish(self, pid):
        child = self.children[pid]
        if child.dead is None and child.running is not None:
            if child.interrupted == child.running:
                child.told.append(("interrupted", child.running))
            else:
                self.finished.add(child.running)
                child.told.append(("ended", child.running))
            child.running = child.interrupted = None

    def leave(self, pid):
        """What a child does that was told to stop and has nothing to do."""
        child = self.children[pid]
        if child.stopping and child.ready and child.running is None and child.dead is None:
            child.told.append(("leaving",))
            child.dead = "exit code 0"


def job(ticket, name="t", hard=None):
    return Job(ticket, name, "q", 1, False, b"", "r", b"", None, hard)


class Supervising(RuleBasedStateMachine):
    @initialize(size=st.integers(1, 3), max_tasks=st.sampled_from([None, None, 1, 3, 12]))
    def begin(self, size, max_tasks):
        self.now = 100.0
        self.out = FakeEffects()
        self.supervisor = Supervisor(self.out, size, max_tasks=max_tasks)
        self.tickets = 0
        self.unwanted = set()  # tickets that somebody wanted to end
        self.limited = set()  # tickets with a time limit
        self.stopped = self.aborted = False
        self.supervisor.turn(self.now)

    def pids(self, number):
        return sorted(self.supervisor.members)[number : number + 1]

    def hear(self, pid, count=1):
        child = self.out.children[pid]
        for _ in range(count):
            if not child.told:
                break
            what, *rest = child.told.popleft()
            if what == "ended":
                assert self.supervisor.on_ended(pid, rest[0], Done(b"", 0.001), self.now)
            elif what == "interrupted":
                assert self.supervisor.on_interrupted(pid, rest[0], self.now)
            else:
                self.supervisor.on_leaving(pid, self.now)

    def bury(self, pid):
        child = self.out.children[pid]
        if child.dead is not None:
            self.hear(pid, len(child.told))
            running = child.running
            self.supervisor.on_died(pid, child.dead, self.now)
            if running is not None:
                self.check_death(running, child.dead)
            del self.out.children[pid]

    def check_death(self, running, how):
        outcome = self.out.outcomes[running]
        if how != OURS:
            assert not isinstance(outcome, Done | Returned)
        elif not self.stopped:
            assert isinstance(outcome, TimedOut | Terminated), "an innocent was killed"
        else:
            assert isinstance(outcome, TimedOut | Terminated | Abandoned)

    @precondition(lambda self: not self.stopped)
    @rule(
        name=st.sampled_from("abc"), hard=st.sampled_from([None, None, 0.5]), many=st.integers(1, 5)
    )
    def submit(self, name, hard, many):
        for _ in range(many):
            self.tickets += 1
            self.supervisor.pending.append(job(self.tickets, name, hard))
            if hard is not None:
                self.limited.add(self.tickets)
        self.supervisor.turn(self.now)

    @rule(number=st.integers(0, 4), ok=st.booleans())
    def import_app(self, number, ok):
        for pid in self.pids(number):
            child = self.out.children[pid]
            if not child.ready and child.dead is None:
                if ok:
                    child.ready = True
                    self.supervisor.on_ready(pid)
                else:
                    child.dead = "exit code 78"

    @rule(number=st.integers(0, 4))
    def start_job(self, number):
        for pid in self.pids(number):
            self.out.begin(pid)

    @rule(number=st.integers(0, 4), again=st.booleans())
    def finish_job(self, number, again):
        for pid in self.pids(number):
            self.out.finish(pid)
            if again:
                self.out.begin(pid)

    @rule(number=st.integers(0, 4), count=st.integers(1, 9))
    def listen(self, number, count):
        for pid in self.pids(number):
            self.hear(pid, count)
        self.supervisor.turn(self.now)

    @rule(number=st.integers(0, 4))
    def crash(self, number):
        for pid in self.pids(number):
            child = self.out.children[pid]
            child.dead = child.dead or "SIGSEGV"

    @rule(number=st.integers(0, 4))
    def find_dead(self, number):
        for pid in self.pids(number):
            self.out.leave(pid)
            self.bury(pid)
        self.supervisor.turn(self.now)

    @rule(seconds=st.sampled_from([0.0, 0.001, OVERDUE, 0.2, 0.6, INTERRUPT_GRACE, EXIT_TIMEOUT]))
    def wait(self, seconds):
        self.now += seconds
        self.supervisor.turn(self.now)

    @rule(refuse=st.booleans())
    def lack_of_processes(self, refuse):
        self.out.refuse = refuse

    @precondition(lambda self: self.tickets)
    @rule(back=st.integers(0, 6), number=st.sampled_from([signal.SIGTERM, signal.SIGKILL]))
    def terminate(self, back, number):
        ticket = max(1, self.tickets - back)
        known = ticket not in self.out.outcomes
        begun = ticket in self.out.begun
        self.unwanted.add(ticket)
        done = self.supervisor.terminate(ticket, number, self.now)
        assert known or not done
        if known and not begun:
            assert done and self.out.outcomes[ticket] == Terminated()
        self.supervisor.turn(self.now)

    @precondition(lambda self: self.tickets)
    @rule(back=st.integers(0, 6))
    def withdraw(self, back):
        ticket = max(1, self.tickets - back)
        possible = ticket not in self.out.outcomes and ticket not in self.out.begun
        assert self.supervisor.withdraw(ticket) == possible
        if possible:
            assert self.out.outcomes[ticket] == Returned()
        self.supervisor.turn(self.now)

    @rule()
    def return_waiting(self):
        before = set(self.out.outcomes)
        self.supervisor.return_waiting(self.now)
        returned = set(self.out.outcomes) - before
        assert all(self.out.outcomes[ticket] == Returned() for ticket in returned)
        self.supervisor.turn(self.now)

    @rule(number=st.integers(0, 4))
    def own_limit(self, number):
        for pid in self.pids(number):
            running = self.out.children[pid].running
            if running is not None:
                self.limited.add(running)
                self.supervisor.on_limit(pid, running, 0.3)

    @rule(count=st.integers(-2, 2))
    def resize(self, count):
        if self.supervisor.size + count >= 1:
            self.supervisor.resize(count)
            self.supervisor.turn(self.now)

    @rule()
    def restart(self):
        self.supervisor.restart()
        self.supervisor.turn(self.now)

    @precondition(lambda self: self.tickets > 3)
    @rule(grace=st.sampled_from([0.0, 1.0]))
    def stop(self, grace):
        self.stopped = True
        self.supervisor.stop(self.now, grace)
        self.supervisor.turn(self.now)

    @precondition(lambda self: self.stopped)
    @rule()
    def abort(self):
        self.supervisor.abort()
        self.supervisor.turn(self.now)

    def teardown(self):
        if not hasattr(self, "supervisor"):
            return
        if not self.stopped:
            self.settle_down()
        self.supervisor.stop(self.now, 0.0)
        self.stopped = True
        for _ in range(50):
            self.supervisor.turn(self.now)
            if self.supervisor.ended:
                break
            for pid in list(self.supervisor.members):
                self.out.leave(pid)
                self.bury(pid)
            due = self.supervisor.next_time()
            self.now = max(self.now, due if due < 1e9 else self.now) + 0.001
        assert self.supervisor.ended, "it does not end"
        assert set(self.out.outcomes) == set(range(1, self.tickets + 1)), "not all are told"
        self.check_outcomes()

    def settle_down(self):
        """Left alone with well-behaved children, it runs everything with as many as it should."""
        self.out.refuse = False
        for _ in range(200):
            self.supervisor.turn(self.now)
            for pid in list(self.supervisor.members):
                child = self.out.children[pid]
                if not child.ready and child.dead is None:
                    child.ready = True
                    self.supervisor.on_ready(pid)
                self.out.begin(pid)
                self.out.finish(pid)
                self.hear(pid, 9)
                self.out.leave(pid)
                self.bury(pid)
            self.now += 0.5
        assert len(self.out.outcomes) == self.tickets, "something was forgotten"
        there = [pid for pid in self.supervisor.members if self.out.children[pid].dead is None]
        assert len(there) == self.supervisor.size
        assert self.supervisor.next_time() > self.now

    def check_outcomes(self):
        for ticket, outcome in self.out.outcomes.items():
            if isinstance(outcome, Done):
                assert ticket in self.out.finished
            elif isinstance(outcome, Returned):
                assert ticket not in self.out.begun
            elif isinstance(outcome, Crashed):
                assert outcome.how != OURS
                assert ticket in self.out.begun and ticket not in self.out.finished
            elif isinstance(outcome, TimedOut | Abandoned):
                assert ticket in self.out.begun and ticket not in self.out.finished
            else:
                assert ticket not in self.out.finished
            assert ticket in self.unwanted or not isinstance(outcome, Terminated)
            assert ticket in self.limited or not isinstance(outcome, TimedOut)


TestSupervising = Supervising.TestCase
TestSupervising.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def supervisor_of(size, **options):
    effects = FakeEffects()
    supervisor = Supervisor(effects, size, **options)
    supervisor.turn(0.0)
    for pid in list(supervisor.members):
        effects.children[pid].ready = True
        supervisor.on_ready(pid)
    return effects, supervisor


def warm(effects, supervisor, now=0.0, seconds=0.0001):
    """Teach it that tasks called t are short."""
    supervisor.pending.append(job(10**6))
    supervisor.turn(now)
    (pid,) = [pid for pid, child in effects.children.items() if child.granted]
    effects.begin(pid)
    effects.finish(pid)
    supervisor.on_ended(pid, 10**6, Done(b"", seconds), now)


def two_at_work(count):
    """Two children that have ``count`` short jobs; each has begun one."""
    effects, supervisor = supervisor_of(2)
    warm(effects, supervisor)
    supervisor.pending.extend(job(number) for number in range(1, count + 1))
    supervisor.turn(0.0)
    first, second = effects.children
    effects.begin(first)
    effects.begin(second)
    return effects, supervisor, first, second


@pytest.mark.parametrize(("seconds", "count"), [(0.0, MAX_WINDOW), (0.0011, 5), (0.1, 1)])
def test_jobs_wait_behind_one_another_up_to_a_bound_of_work_and_of_number(seconds, count):
    effects, supervisor = supervisor_of(1)
    warm(effects, supervisor, seconds=seconds)
    supervisor.pending.extend(job(number) for number in range(1, 100))
    supervisor.turn(0.0)
    (member,) = supervisor.members.values()
    assert len(member.jobs) == count


def test_a_terminate_that_comes_when_the_next_task_runs_hits_nobody():
    effects, supervisor = supervisor_of(1)
    warm(effects, supervisor)
    supervisor.pending.extend([job(1), job(2), job(3)])
    supervisor.turn(0.0)
    (pid,) = supervisor.members
    effects.begin(pid)
    effects.finish(pid)  # the supervisor does not know yet that 1 has ended
    effects.begin(pid)
    assert not supervisor.terminate(1, signal.SIGKILL, 0.0)
    assert effects.children[pid].dead is None
    assert effects.children[pid].running == 2
    assert supervisor.on_ended(pid, 1, Done(b"", 0.001), 0.0)
    supervisor.turn(0.0)
    assert list(effects.children[pid].granted) == [3]


def test_a_time_limit_that_is_over_when_the_next_task_runs_hits_nobody():
    effects, supervisor = supervisor_of(1)
    warm(effects, supervisor)
    supervisor.pending.extend([job(1, hard=1.0), job(2)])
    supervisor.turn(0.0)
    (pid,) = supervisor.members
    effects.begin(pid)
    effects.finish(pid)
    effects.begin(pid)
    supervisor.turn(1.5)
    assert effects.children[pid].dead is None
    assert supervisor.on_ended(pid, 1, Done(b"", 0.001), 1.5)


def test_what_waits_behind_a_long_task_is_taken_back_and_given_to_another_child():
    effects, supervisor, first, second = two_at_work(6)
    waiting = list(effects.children[first].granted)
    assert waiting
    for ticket in [effects.children[second].running, *effects.children[second].granted]:
        effects.begin(second)
        effects.finish(second)
        supervisor.on_ended(second, ticket, Done(b"", 0.0001), 0.001)
    supervisor.turn(OVERDUE)
    assert not effects.children[first].granted
    assert list(effects.children[second].granted) == waiting


def test_when_everybody_is_at_a_long_task_what_waits_is_given_back():
    effects, supervisor, _, _ = two_at_work(99)
    supervisor.turn(OVERDUE)
    begun = {child.running for child in effects.children.values()}
    assert supervisor.pace.ahead > 1
    supervisor.return_waiting(LONG - 0.01)
    assert set(effects.outcomes) == {10**6}, "they have not been at it for long"
    supervisor.return_waiting(LONG)
    returned = {number for number in range(1, 100) if number not in begun}
    assert {n for n, told in effects.outcomes.items() if told == Returned()} == returned
    assert supervisor.pace.ahead == 1, "as many shall not come again"


def test_while_one_child_goes_on_nothing_is_given_back():
    effects, supervisor = supervisor_of(2)
    warm(effects, supervisor)
    supervisor.pending.extend(job(number, name=f"new {number}") for number in range(1, 10))
    supervisor.turn(0.0)
    first, second = effects.children
    effects.begin(first)
    for step in range(1, 6):
        effects.begin(second)
        ticket = effects.children[second].running
        effects.finish(second)
        supervisor.on_ended(second, ticket, Done(b"", LONG), LONG * step)
        supervisor.return_waiting(LONG * step)
        supervisor.turn(LONG * step)
        supervisor.return_waiting(LONG * step)
    assert Returned() not in effects.outcomes.values()


def test_a_supervisor_that_is_still_starting_gives_nothing_back():
    effects = FakeEffects()
    supervisor = Supervisor(effects, 2)
    supervisor.pending.append(job(1))
    supervisor.turn(0.0)
    supervisor.return_waiting(100.0)
    assert not effects.outcomes


def test_children_that_die_young_are_started_later_and_later():
    effects, supervisor = supervisor_of(1)
    (pid,) = supervisor.members
    supervisor.on_died(pid, "SIGKILL", 0.0)
    supervisor.turn(0.0)
    now, pauses = 0.0, []
    for _ in range(30):
        (pid,) = supervisor.members
        supervisor.on_died(pid, "exit code 78", now)
        supervisor.turn(now)
        due = supervisor.next_time()
        pauses.append(due - now)
        now = due
        supervisor.turn(now)
        assert len(supervisor.members) == 1
    assert max(pauses) <= RESTARTS.cap
    assert sum(pauses) > 30.0


def test_outcomes_may_be_heard_together_while_everybody_has_more_to_do():
    effects, supervisor = supervisor_of(2)
    assert supervisor.slack() == 0.0
    warm(effects, supervisor)
    supervisor.pending.extend(job(number) for number in range(1, 4))
    supervisor.turn(0.0)
    assert supervisor.slack() == 0.0, "one of them has a single job"
    supervisor.pending.extend(job(number) for number in range(4, 21))
    supervisor.turn(0.0)
    assert 0.0 < supervisor.slack() <= 10 * LEAST_COST, "half of what the less busy one has to do"
    supervisor.stop(0.0, 10.0)
    assert supervisor.slack() == 0.0


def test_a_child_whose_task_is_being_ended_gets_nothing_else():
    effects, supervisor = supervisor_of(1)
    warm(effects, supervisor)
    supervisor.pending.append(job(1))
    supervisor.turn(0.0)
    (pid,) = supervisor.members
    effects.begin(pid)
    assert supervisor.terminate(1, signal.SIGTERM, 0.0)
    supervisor.pending.append(job(2))
    supervisor.turn(0.0)
    assert not effects.children[pid].granted
    effects.finish(pid)
    assert supervisor.on_interrupted(pid, 1, 0.0)
    supervisor.turn(0.0)
    assert list(effects.children[pid].granted) == [2]


def test_a_child_that_never_gets_ready_is_killed_and_its_successor_comes_later():
    effects, supervisor = supervisor_of(1)
    (pid,) = supervisor.members
    supervisor.on_died(pid, "SIGKILL", 0.0)
    supervisor.turn(0.0)
    (pid,) = supervisor.members
    assert supervisor.next_time() == START_TIMEOUT
    supervisor.turn(START_TIMEOUT)
    assert effects.children[pid].dead == OURS
    supervisor.on_died(pid, OURS, START_TIMEOUT)
    supervisor.turn(START_TIMEOUT)
    assert not supervisor.members or supervisor.next_time() > START_TIMEOUT


def test_the_successor_of_a_child_with_few_jobs_to_go_is_started_before_it_is_needed():
    effects, supervisor = supervisor_of(1, max_tasks=20)
    (old,) = supervisor.members
    for number in range(1, 18):
        supervisor.pending.append(job(number))
        supervisor.turn(0.0)
        effects.begin(old)
        effects.finish(old)
        supervisor.on_ended(old, number, Done(b"", 0.0001), 0.0)
        supervisor.turn(0.0)
    assert list(supervisor.members) == [old]
    supervisor.pending.append(job(18))
    supervisor.turn(0.0)
    assert supervisor.next_time() <= 0.0
    supervisor.turn(0.0)
    _, new = supervisor.members
    effects.begin(old)
    effects.finish(old)
    supervisor.on_ended(old, 18, Done(b"", 0.0001), 0.0)
    supervisor.pending.append(job(19))
    supervisor.turn(0.0)
    assert list(effects.children[old].granted) == [19], "it works until the other one is ready"
    effects.children[new].ready = True
    supervisor.on_ready(new)
    supervisor.turn(0.0)
    assert effects.children[old].stopping
    supervisor.turn(0.0)
    assert list(effects.children[new].granted) == [19]

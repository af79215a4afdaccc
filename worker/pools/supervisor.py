"""Which child gets which job, who is charged when one dies, and who is replaced when. No I/O.

A `Supervisor` is told what happened and when - a job came, a child is ready, has finished, has
died - and acts through `Effects`, which is `children.Children` in a worker; tests give it another
one, and a clock of their own.

The rules:

- Each job is told of exactly once, and a job that was begun is never begun again here.
- A child runs one job at a time, in the order given. The first of its ``jobs`` is the one that
  runs, unless words of its end are still on their way.
- Nobody is killed without taking back what waits behind the running job (`Effects.take_back`).
  After that the child can begin nothing more, so a kill hits the job that it is meant for, or none.
- A job that was not begun is nobody's fault: it goes to another child.
- A child that is to be replaced goes when another one is ready, and so at most a quarter more than
  ``size`` live at once, and those that are just leaving.
"""

from __future__ import annotations

import math
import signal
from collections import deque
from typing import Protocol

from queue_core import Backoff
from queue_core.worker.outcome import (
    Abandoned,
    Crashed,
    Done,
    Failed,
    Job,
    Outcome,
    Returned,
    Terminated,
    TimedOut,
)
from queue_core.worker.pools.member import Member
from queue_core.worker.pools.pace import LONG, MAX_BEHIND, MAX_WINDOW, Pace

RESTARTS = Backoff(base=0.5, cap=30.0)
"""Seconds before a child is started whose predecessors did not get as far as to be ready."""
OVERDUE = 0.02
"""Seconds that a job may run before what waits behind it goes elsewhere."""
LEAST_COST = 0.00002
"""Seconds that no job takes less than, with all that a child does for it."""
INTERRUPT_GRACE = 1.0
"""Seconds that a task may go on after it was interrupted."""
START_TIMEOUT = 60.0
"""Seconds in which a child must have imported the app."""
EXIT_TIMEOUT = 5.0
"""Seconds in which a child that starts nothing more must be gone."""

_TIMED = (Done, Failed)


class Effects(Protocol):
    """What a supervisor does to the world. Nothing here blocks or raises, but for `start`."""

    def start(self) -> int:
        """Start a child and return its process id; raises OSError."""

    def give(self, pid: int, jobs: list[Job]) -> None:
        """Hand jobs to a child, in order."""

    def take_back(self, pid: int) -> list[int]:
        """Return the tickets of those jobs that the child has not begun, and now never will."""

    def stop(self, pid: int) -> None:
        """Let the child leave when what it began has ended."""

    def interrupt(self, pid: int, ticket: int, number: int) -> None:
        """Interrupt a job by a signal, if it runs; the child goes on if it does not."""

    def kill(self, pid: int) -> None:
        """Kill a child. Its death is told as that of any other."""

    def tell(self, ticket: int, outcome: Outcome) -> None:
        """Report an outcome."""


class Supervisor:
    """The children of a pool and the jobs that are not with any of them yet. Not thread-safe.

    Attributes:
        aborted: nothing shall be waited for.
    """

    def __init__(self, effects: Effects, size: int, *, max_tasks: int | None = None) -> None:
        """Nobody is started before the first `turn`."""
        self._effects = effects
        self.size = size
        self.max_tasks = max_tasks
        self.members: dict[int, Member] = {}
        self.pending: deque[Job] = deque()
        self.clean = True
        self.pace = Pace()
        self._deadline: float | None = None
        self.aborted = False
        self._failures = 0
        self._next_start = 0.0
        self._changed = True  # who is there, or who should be

    # --- what happens ----------------------------------------------------------------------------

    def on_ready(self, pid: int) -> None:
        """The child has imported the app."""
        member = self.members[pid]
        member.ready, member.kill_at = True, math.inf
        self._failures = 0
        self._changed = True

    def on_limit(self, pid: int, ticket: int, hard: float) -> None:
        """The message of a job says itself how long it may run."""
        member = self.members[pid]
        if member.jobs and member.jobs[0].ticket == ticket:
            member.hard = hard

    def on_ended(self, pid: int, ticket: int, outcome: Outcome, now: float) -> bool:
        """A job has ended; False if the child was not given such a job."""
        member = self.members[pid]
        if not member.jobs or member.jobs[0].ticket != ticket:
            return False
        job = member.finish(now)
        if not self._changed and (not member.lasting or self._spent(member)):
            self._changed = True
        if isinstance(outcome, _TIMED):
            self.pace.observe(job.name, outcome.seconds)
        self._effects.tell(ticket, outcome)
        return True

    def on_interrupted(self, pid: int, ticket: int, now: float) -> bool:
        """A job has ended because it was interrupted; False as `on_ended`."""
        means = self.members[pid].forced_end(ticket) or Terminated()
        self.clean = self.clean and not isinstance(means, Abandoned)
        return self.on_ended(pid, ticket, means, now)

    def on_leaving(self, pid: int, now: float) -> None:
        """The child starts nothing more."""
        member = self.members[pid]
        self._recall(member)
        member.leaving = self._changed = True
        member.kill_at = now + EXIT_TIMEOUT

    def on_died(self, pid: int, how: str, now: float) -> None:
        """The child is gone, and everything that it said was heard."""
        member = self.members[pid]
        self._recall(member)
        del self.members[pid]
        self._changed = True
        for job in member.jobs:
            outcome = member.forced_end(job.ticket) or Crashed(how)
            self.clean = self.clean and not isinstance(outcome, Abandoned)
            self._effects.tell(job.ticket, outcome)
        if not member.ready and not member.dying:
            self._start_later(now)

    def disband(self) -> None:
        """It cannot go on: report every job that is left; the children are killed by the caller."""
        for member in self.members.values():
            self._recall(member)
            for job in member.jobs:
                self.clean = False
                self._effects.tell(job.ticket, Abandoned())
        self.members.clear()
        self._return_pending()

    # --- what to do ------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Do what is to be done at ``now``."""
        if self._deadline is not None:
            self._wind_down(now)
        for member in list(self.members.values()):
            self._enforce(member, now)
        if self._deadline is None:
            if self._changed:
                self._replace(now)
            self._hand_out(now)

    def next_time(self) -> float:
        """Return when the next `turn` is due if nothing happens; infinite if none is."""
        due = math.inf
        if self._deadline is not None:
            due = self._deadline
        elif self._changed:
            due = self._next_start
        for member in self.members.values():
            due = min(due, member.kill_at)
            if not member.dying:
                due = min(due, member.overtime)
            if len(member.jobs) > 1 and not member.recalled:
                due = min(due, member.began + OVERDUE)
        return due

    def slack(self) -> float:
        """Return the seconds in which nobody can run out of jobs.

        Word of outcomes may wait for so long, and be heard together.
        """
        least = min((len(member.jobs) for member in self._able()), default=0)
        return (least - 1) * LEAST_COST / 2 if least > 1 and self._deadline is None else 0.0

    @property
    def ended(self) -> bool:
        """It was stopped, and nobody is left."""
        return self._deadline is not None and not self.members

    # --- control ---------------------------------------------------------------------------------

    def stop(self, now: float, grace: float) -> None:
        """End everything within ``grace`` seconds; the first call counts."""
        if self._deadline is None:
            self._deadline = now + grace

    def abort(self) -> None:
        """Once stopped, do not wait any longer."""
        self.aborted = True

    def restart(self) -> None:
        """Replace everybody."""
        for member in self.members.values():
            self.replace(member.pid)

    def replace(self, pid: int) -> None:
        """Replace a child."""
        self.members[pid].outdated = self._changed = True

    def resize(self, count: int) -> None:
        """Have so many more children, or less if it is negative."""
        self.size += count
        self._changed = True

    def withdraw(self, ticket: int) -> bool:
        """Take back a job that was not begun; whether it could be done."""
        holder = self._holder(ticket)
        if holder is not None:
            self._recall(holder)
        return self._forget(ticket, Returned())

    def return_waiting(self, now: float) -> bool:
        """If everybody has been at one job for long, return those that nobody has; any?"""
        able = self._able()
        if not able or not all(member.jobs and now - member.began >= LONG for member in able):
            return False
        self.pace.slow_down()
        return self._return_pending()

    def terminate(self, ticket: int, number: int, now: float) -> bool:
        """End a job and no other; whether there is such a job."""
        holder = self._holder(ticket)
        if holder is not None:
            self._recall(holder)
            if holder.jobs and holder.jobs[-1].ticket == ticket:
                self._interrupt(holder, Terminated(), number, now)
                return True
        return self._forget(ticket, Terminated())

    # --- inside ----------------------------------------------------------------------------------

    def _holder(self, ticket: int) -> Member | None:
        for member in self.members.values():
            if any(job.ticket == ticket for job in member.jobs):
                return member
        return None

    def _forget(self, ticket: int, outcome: Outcome) -> bool:
        for job in self.pending:
            if job.ticket == ticket:
                self.pending.remove(job)
                self._effects.tell(ticket, outcome)
                return True
        return False

    def _recall(self, member: Member) -> None:
        """Take back what the child has not begun. After this it begins nothing more."""
        member.recalled = True
        self.pending.extendleft(reversed(member.drop(self._effects.take_back(member.pid))))

    def _interrupt(self, member: Member, means: Outcome, number: int, now: float) -> None:
        """End the job that was begun last, after `_recall`."""
        job = member.jobs[-1]
        member.interrupted = job.ticket, means
        if number == signal.SIGKILL:
            self._kill(member)
        else:
            member.kill_at = min(member.kill_at, now + INTERRUPT_GRACE)
            self._effects.interrupt(member.pid, job.ticket, number)

    def _kill(self, member: Member) -> None:
        if not member.dying:
            member.dying = self._changed = True
            self._effects.kill(member.pid)
        member.kill_at = math.inf

    def _enforce(self, member: Member, now: float) -> None:
        """Time limits, and jobs that wait behind one that takes longer than expected."""
        if now >= member.kill_at:
            if not member.ready:  # it hangs in the import of the app
                self._start_later(now)
            self._recall(member)
            self._kill(member)
        if member.dying:
            return
        if now >= member.overtime:
            first, limit = member.jobs[0], member.hard
            assert limit is not None
            self._recall(member)
            # More than one were begun: the first has ended, and word of that is on its way.
            if len(member.jobs) == 1 and member.jobs[0] is first:
                self._interrupt(member, TimedOut(limit), signal.SIGKILL, now)
            else:
                member.hard = None
        elif len(member.jobs) > 1 and not member.recalled and now - member.began >= OVERDUE:
            self._recall(member)

    def _start_later(self, now: float) -> None:
        self._failures += 1
        self._next_start = now + RESTARTS.delay(self._failures)

    # --- who there is ----------------------------------------------------------------------------

    def _spent(self, member: Member) -> bool:
        return self.max_tasks is not None and member.given >= self.max_tasks

    def _fading(self, member: Member) -> bool:
        """Whether it has so few jobs to go that its successor should be started."""
        return self.max_tasks is not None and member.given >= self.max_tasks - self.max_tasks // 10

    def _lasting(self) -> list[Member]:
        """Those that are here to stay."""
        return [
            member for member in self.members.values() if member.lasting and not self._spent(member)
        ]

    def _missing(self) -> int:
        """How many are to be started, once that may be."""
        most = self.size + max(1, self.size // 4)
        there = sum(
            1
            for member in self.members.values()
            if member.jobs or not (member.leaving or member.dying)
        )
        return max(0, min(self.size - len(self._lasting()), most - there))

    def _replace(self, now: float) -> None:
        """Start who is missing, later and later while they die young; let go who is too many."""
        while (missing := self._missing()) and now >= self._next_start:
            try:
                pid = self._effects.start()
            except OSError:
                self._start_later(now)
                break
            member = self.members[pid] = Member(pid)
            member.kill_at = now + START_TIMEOUT
        self._changed = missing > 0  # it is tried again at its time
        for member in list(self.members.values()):
            if self._spent(member) and member.ready and not member.jobs:
                self._let_go(member)
        self._dismiss()

    def _dismiss(self) -> None:
        """Let go who is too many: those to be replaced first, then who has least to do."""
        working = [
            member
            for member in self.members.values()
            if not (member.leaving or member.dying or self._spent(member))
        ]
        ready = [member for member in working if member.ready]
        lasting = [member for member in working if not member.outdated]
        old = [member for member in ready if member.outdated]
        for member in old[: max(0, len(ready) - self.size)]:
            self._let_go(member)
        extra = sorted(lasting, key=lambda member: (member.ready, member.load))
        for member in extra[: max(0, len(lasting) - self.size)]:
            self._let_go(member)

    def _let_go(self, member: Member) -> None:
        if member.ready:
            self._recall(member)
            member.leaving = self._changed = True
            self._effects.stop(member.pid)
        else:
            self._kill(member)

    # --- who gets what ---------------------------------------------------------------------------

    def _hand_out(self, now: float) -> None:
        if not self.pending:
            return
        given: dict[int, list[Job]] = {}
        able = [member for member in self._able() if not self._spent(member)]
        while self.pending:
            member = _least_loaded(able, now)
            if member is None:
                break
            job = self.pending.popleft()
            member.add(job, self.pace.expect(job.name), now)
            if self.max_tasks is not None:
                self._wear_out(member, able)
            given.setdefault(member.pid, []).append(job)
        for pid, jobs in given.items():
            self._effects.give(pid, jobs)

    def _able(self) -> list[Member]:
        return [
            member
            for member in self.members.values()
            if member.ready and not (member.leaving or member.dying) and member.interrupted is None
        ]

    def _wear_out(self, member: Member, able: list[Member]) -> None:
        """It has one job less to go."""
        if self._fading(member):
            member.outdated = self._changed = True
        if self._spent(member):
            able.remove(member)

    # --- the end ---------------------------------------------------------------------------------

    def _wind_down(self, now: float) -> None:
        assert self._deadline is not None
        over = self.aborted or now >= self._deadline
        if over:
            self._deadline = math.inf
        for member in list(self.members.values()):
            if not (member.leaving or member.dying):
                self._let_go(member)
            if over and not member.dying:
                self._give_up(member, now)
        self._return_pending()

    def _return_pending(self) -> bool:
        """Report what nobody has as returned; whether there was anything."""
        some = bool(self.pending)
        while self.pending:
            self._effects.tell(self.pending.popleft().ticket, Returned())
        return some

    def _give_up(self, member: Member, now: float) -> None:
        """The grace is over: interrupt what runs, and kill who does not end soon."""
        if member.jobs and member.interrupted is None:
            number = signal.SIGKILL if self.aborted else signal.SIGTERM
            self._interrupt(member, Abandoned(), number, now)
        elif self.aborted:
            self._kill(member)
        else:
            member.kill_at = min(member.kill_at, now + INTERRUPT_GRACE)


def _least_loaded(able: list[Member], now: float) -> Member | None:
    best, least = None, math.inf
    for member in able:
        if not member.jobs:
            return member
        if (
            member.load < least
            and member.load <= MAX_BEHIND
            and len(member.jobs) < MAX_WINDOW
            and now - member.began < OVERDUE
        ):
            best, least = member, member.load
    return best

"""One child of a process pool as its supervisor keeps it in mind: its jobs, and what awaits it.

No I/O, no clock.
"""

from __future__ import annotations

import math
from collections import deque

from queue_core.worker.outcome import Job, Outcome


class Member:
    """One child as the supervisor sees it.

    Attributes:
        jobs: that it was given and did not finish; the oldest first.
        given: how many it was given in all.
        began: when the first of ``jobs`` began.
        hard: the time limit of that job.
        ready, leaving, dying: it has imported the app; it starts nothing more; it was killed.
        outdated: it works, and is to be replaced.
    """

    __slots__ = (
        "_costs",
        "began",
        "dying",
        "finished",
        "given",
        "hard",
        "interrupted",
        "jobs",
        "kill_at",
        "leaving",
        "load",
        "outdated",
        "pid",
        "ready",
        "recalled",
    )

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.jobs: deque[Job] = deque()
        self._costs: deque[float] = deque()
        self.load = 0.0
        self.given = 0
        self.finished = 0
        self.began = 0.0
        self.hard: float | None = None
        self.ready = self.leaving = self.dying = self.outdated = self.recalled = False
        self.interrupted: tuple[int, Outcome] | None = None  # the job, and what its end means
        self.kill_at = math.inf

    def add(self, job: Job, cost: float, now: float) -> None:
        """It was given a job that is expected to take ``cost`` seconds."""
        self.jobs.append(job)
        self._costs.append(cost)
        self.load += cost
        self.given += 1
        if len(self.jobs) == 1:
            self._begin(now)

    def finish(self, now: float) -> Job:
        """The first job has ended, and the next begins."""
        job = self.jobs.popleft()
        cost = self._costs.popleft()
        self.load = self.load - cost if self.jobs and cost < math.inf else sum(self._costs)
        self.finished += 1
        if self.forced_end(job.ticket) is not None:
            self.interrupted, self.kill_at = None, math.inf
        if self.jobs:
            self._begin(now)
        return job

    def forced_end(self, ticket: int) -> Outcome | None:
        """Return what it means that this job ends; None unless it was interrupted."""
        return self.interrupted[1] if self.interrupted and self.interrupted[0] == ticket else None

    def drop(self, tickets: list[int]) -> list[Job]:
        """Take jobs away again that it did not begin; they are its last ones."""
        gone = set(tickets)
        dropped = [job for job in self.jobs if job.ticket in gone]
        for _ in dropped:
            self.jobs.pop()
            self._costs.pop()
        self.load = sum(self._costs)
        self.given -= len(dropped)
        return dropped

    @property
    def lasting(self) -> bool:
        """Whether it is here to stay."""
        return not (self.outdated or self.leaving or self.dying)

    @property
    def overtime(self) -> float:
        """When the first job has run for too long; infinite if never."""
        return self.began + self.hard if self.jobs and self.hard is not None else math.inf

    def _begin(self, now: float) -> None:
        self.began = now
        self.hard = self.jobs[0].hard_limit
        self.recalled = False

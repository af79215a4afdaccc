"""Asks every contestant every question, in turn: round 1 of A, B and C, round 2 of A, B and C ...

The first samples of each are thrown away; they tell how many operations fit into the time of one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.adapter import NotOffered
from benchmarks.cases import Case
from benchmarks.processes import Failed, Job, Processes, Reply
from benchmarks.results import Row

QUESTIONS = (
    "publish",
    "consume",
    "pingpong",
    "idle",
    "crowd",
    "depth",
    "mailbox",
    "silence",
    "flood",
    "command",
    "tasks",
    "enqueue",
    "dispatch",
    "footprint",
)


def all_cases() -> list[Case]:
    """Every case of every question."""
    return [
        case
        for name in QUESTIONS
        for case in importlib.import_module(f"benchmarks.questions.{name}").CASES
    ]


@dataclass(frozen=True)
class Plan:
    """What one run does.

    Attributes:
        cases: in this order.
        urls: where each broker is; those that are not here are not asked.
        contestants: who takes part.
        rounds: samples per row.
        seconds: how long a sample should last.
        trials: samples before those that are not counted; the first is short.
        counts: a fixed number of operations per sample instead, for tests of the runner.
    """

    cases: Sequence[Case]
    urls: Mapping[str, str]
    contestants: Sequence[str]
    rounds: int
    seconds: float
    trials: int = 2
    counts: int = 0


def run(plan: Plan, processes: Processes, tell: Callable[[str], object]) -> Iterable[list[Row]]:
    """Yield the rows of each case and broker; failed ones have an ``error``."""
    for case in plan.cases:
        question = importlib.import_module(f"benchmarks.questions.{case.question}")
        for broker in case.brokers:
            if broker in plan.urls:
                tell(f"{case.name}, {broker}")
                yield _race(case, broker, question, plan, processes)
        processes.rest()


def _race(case: Case, broker: str, question: Any, plan: Plan, processes: Processes) -> list[Row]:
    runners = [
        _Runner(name, case, broker, plan) for name in plan.contestants if name in case.contestants
    ]
    trials = plan.trials if case.first and not plan.counts else 0
    rounds = min(case.rounds or plan.rounds, plan.rounds)
    for number in range(-trials, rounds):
        for runner in runners:
            if not runner.row.error and not runner.absent:
                runner.take(_asked(question, processes, runner), number)
    return [runner.row for runner in runners if not runner.absent]


def _asked(question: Any, processes: Processes, runner: _Runner) -> Reply:
    try:
        reply: Reply = question.ask(processes, runner.row.contestant, runner.job)
    except NotOffered as error:
        return {"absent": str(error)}
    except Failed as error:
        return {"error": str(error)}
    return reply


class _Runner:
    """One contestant on its way through the rounds of one case."""

    def __init__(self, name: str, case: Case, broker: str, plan: Plan) -> None:
        facts = {"prefetch": str(case.given["prefetch"])} if "prefetch" in case.given else {}
        self.row = Row(case.name, broker, name, case.unit, facts=facts)
        self.absent = False
        self._case = case
        self._plan = plan
        self._speed = 0.0
        self.job: Job = {
            "question": case.question,
            "broker": broker,
            "url": plan.urls[broker],
            "count": plan.counts or case.first,
            **case.given,
        }

    def take(self, reply: Reply, number: int) -> None:
        if "absent" in reply:
            self.absent = True
            return
        if "error" in reply:
            self.row.error = reply["error"]
            return
        self.row.facts.update(reply.pop("facts", {}))
        if number >= 0:
            self.row.samples.append(reply)
        if self._case.first and not self._plan.counts:
            self._speed = max(self._speed, reply["count"] / reply["seconds"])
            fits = int(self._speed * self._plan.seconds * self._case.longer)
            self.job["count"] = max(self._case.first, min(self._case.most, fits))

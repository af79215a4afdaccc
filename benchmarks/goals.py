"""What queue_core wants to reach, as ratios within one run. Pure.

A goal looks one number up in the results and compares it with its limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.cases import SHARED
from benchmarks.libraries import WINDOWS
from benchmarks.results import Results

Look = Callable[[Results], float | None]
Best = Callable[[Iterable[float]], float]


@dataclass(frozen=True)
class Goal:
    """One line of the list.

    Attributes:
        broker: where it holds.
        text: what is compared.
        look: finds the number; None when it was not measured.
        least: it must not be smaller.
        most: it must not be larger.
        unit: of the number.
    """

    broker: str
    text: str
    look: Look
    least: float | None = None
    most: float | None = None
    unit: str = "x"

    def limit(self) -> str:
        """The goal in words."""
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"

    def reached(self, number: float) -> bool:
        """Whether the number is good enough."""
        return (self.least is None or number >= self.least) and (
            self.most is None or number <= self.most
        )


def _against(broker: str, case: str, other: str) -> Look:
    return lambda results: results.ratio(case, broker, "ours", other)


def _number(broker: str, case: str, number: str) -> Look:
    return lambda results: results.median(case, broker, "ours", number)


CONSUME, MANY, EACH = "consume, prefetch 100", "publish_many", "publish one by one"
PINGPONG, IDLE = "ping-pong", "idle consumer"
NODE, FLOOD = "idle node", "consumer beside a flood of commands"
ONE, ALL = "command to one node", "command to all of 50 nodes"
FROZEN = "one node frozen: return after the last answer"
LATE = "a silent node: return after the timeout"
COMMAND = "inspect ping as a process, less the driver's import"
SHALLOW, DEEP = "consume at depth 1 k", "consume at depth 1 M"
TASKS, THREADS, MIXED = "no-op tasks", "no-op tasks, 8 threads", "mixed load"
SENT, BATCH = "tasks sent one by one", "tasks sent in a batch"
DISPATCH, IDLE_WORKER, LATER = (
    "one task to an idle worker",
    "idle worker",
    "10,000 tasks in an hour",
)
ACKING = ("celery", "dramatiq", "taskiq")


def _slowdown(results: Results, broker: str, contestant: str) -> float | None:
    shallow = results.median(SHALLOW, broker, contestant)
    deep = results.median(DEEP, broker, contestant)
    return shallow / deep if shallow and deep else None


def _depth(broker: str) -> Look:
    return lambda results: _slowdown(results, broker, "ours")


def _depth_against_raw(broker: str) -> Look:
    def look(results: Results) -> float | None:
        ours, raw = _slowdown(results, broker, "ours"), _slowdown(results, broker, "raw")
        return ours / raw if ours and raw else None

    return look


def _against_best(broker: str, case: str, others: Sequence[str], best: Best) -> Look:
    """Ours against the best of several, as ``best`` says."""

    def look(results: Results) -> float | None:
        ours = results.median(case, broker, "ours")
        found = [results.median(case, broker, other) for other in others]
        known = [value for value in found if value]
        return ours / best(known) if ours and known else None

    return look


def _slowed(broker: str, case: str) -> Look:
    """How many times as long as a no-op task by itself one takes in another case."""

    def look(results: Results) -> float | None:
        usual, now = (results.median(name, broker, "ours") for name in (TASKS, case))
        return usual / now if usual and now else None

    return look


def _rates(broker: str, other: str, limits: dict[str, float]) -> list[Goal]:
    return [
        Goal(broker, f"{case}, against {other}", _against(broker, case, other), least=least)
        for case, least in limits.items()
    ]


def _crowd(broker: str, prefetch: int, gain: float, least: float) -> list[Goal]:
    case = f"8 processes, prefetch {prefetch}"
    return [
        Goal(broker, f"{case}, against one", _number(broker, case, "gain"), least=gain),
        Goal(broker, f"{case}: least of mean", _number(broker, case, "least"), least=least),
    ]


def _mailbox() -> list[Goal]:
    goals = []
    for broker in ("redis", "amqp"):
        for other, limit in (("raw", 1.5), ("kombu", 0.6)):
            goals.append(
                Goal(broker, f"{ONE}, against {other}", _against(broker, ONE, other), most=limit)
            )
        goals.append(Goal(broker, f"{ALL}, against kombu", _against(broker, ALL, "kombu"), most=1))
    for broker in SHARED:
        for case, number, what, limit in (
            (FROZEN, "value", "", 100.0),
            (LATE, "value", " p99", 50.0),
            (LATE, "worst", ", worst", 250.0),
        ):
            look = _number(broker, case, number)
            goals.append(Goal(broker, f"{case}{what}", look, most=limit, unit="ms"))
        look = _number(broker, FLOOD, "value")
        goals.append(Goal(broker, FLOOD, look, least=0.8, unit="of its rate"))
    for broker in ("sqlite", "redis", "amqp"):
        look = _number(broker, COMMAND, "value")
        goals.append(Goal(broker, COMMAND, look, most=250.0, unit="ms"))
    return goals


def _worker() -> list[Goal]:
    limits: dict[tuple[str, str], dict[str, float]] = {
        (TASKS, "amqp"): {"dramatiq": 2, "dramatiq-2x8": 1.3, "celery": 4},
        (TASKS, "redis"): {"taskiq": 2.2, "dramatiq-2x8": 2, "celery": 11},
        (TASKS, "postgresql"): {"procrastinate": 10},
        (TASKS, "sqlite"): {"huey": 2.5, "huey-nosync": 1.2},
        (THREADS, "amqp"): {"celery": 2},
        (THREADS, "redis"): {"celery": 6},
        (SENT, "amqp"): {"raw": 0.8},
        (SENT, "redis"): {"celery": 2},
        (SENT, "postgresql"): {"procrastinate": 2},
        (BATCH, "amqp"): {"celery": 4},
    }
    goals = [
        goal
        for (case, broker), others in limits.items()
        for other, least in others.items()
        for goal in _rates(broker, other, {case: least})
    ]
    for broker in ("amqp", "redis"):
        look = _against_best(broker, DISPATCH, ACKING, min)
        goals.append(Goal(broker, f"{DISPATCH}, against the best that acks", look, most=1.3))
        look = _against_best(broker, MIXED, [f"ours-{window}" for window in WINDOWS], max)
        goals.append(Goal(broker, f"{MIXED}, against the best fixed prefetch", look, least=0.9))
    look = _against("postgresql", DISPATCH, "procrastinate")
    goals.append(Goal("postgresql", f"{DISPATCH}, against procrastinate", look, most=0.6))
    look = _number("sqlite", DISPATCH, "value")
    goals.append(Goal("sqlite", DISPATCH, look, most=3.0, unit="ms"))
    for broker in ("sqlite", "postgresql", "redis", "amqp"):
        goals += _worker_alone(broker)
    return goals


def _worker_alone(broker: str) -> list[Goal]:
    """What is not compared with anybody."""
    goals = [
        Goal(broker, f"{case}{what}", _number(broker, case, number), most=most, unit=unit)
        for case, number, what, most, unit in (
            (TASKS, "cpu_parent_us", ": CPU of the parent", 60.0, "us"),
            (TASKS, "cpu_children_us", ": CPU of the children", 60.0, "us"),
            (IDLE_WORKER, "ready", ": from its start to its first task", 0.7, "s"),
            (IDLE_WORKER, "value", ": memory", 90.0, "MiB"),
            (IDLE_WORKER, "idle_cpu", ": CPU", 1.0, "%"),
            (IDLE_WORKER, "round_trips", ": round trips a second", 3.0, "/s"),
            (LATER, "value", ": memory", 20.0, "MiB"),
        )
    ]
    for depth in ("100 k", "1 M"):
        text = f"time per no-op task, {depth} queued"
        goals.append(Goal(broker, text, _slowed(broker, f"{TASKS}, {depth} queued"), most=1.3))
    return goals


def _every_broker() -> list[Goal]:
    goals = []
    for broker in ("memory", "sqlite", "redis", "postgresql", "mariadb", "amqp"):
        for case in (IDLE, NODE):
            look = _number(broker, case, "value")
            goals.append(Goal(broker, f"{case}: CPU", look, most=1.0, unit="%"))
        trips = _number(broker, IDLE, "round_trips")
        if broker not in ("memory", "sqlite"):
            text = "idle consumer: round trips a second"
            goals.append(Goal(broker, text, trips, most=3.0, unit="/s"))
        if broker not in ("memory", "amqp"):
            text = "time per message, depth 1 M against 1 k"
            goals.append(Goal(broker, text, _depth(broker), most=1.3))
    return goals


GOALS: tuple[Goal, ...] = (
    *_rates("amqp", "raw", {CONSUME: 0.75, MANY: 0.65, EACH: 0.85}),
    *_rates("amqp", "kombu", {CONSUME: 1.5, MANY: 1.0}),
    Goal("amqp", "ping-pong, against raw", _against("amqp", PINGPONG, "raw"), most=1.2),
    Goal(
        "amqp",
        "time per message, depth 1 M against 1 k, relative to raw",
        _depth_against_raw("amqp"),
        most=1.3,
    ),
    *_rates("redis", "kombu", {CONSUME: 15, EACH: 2, MANY: 15}),
    Goal("redis", "ping-pong, against raw", _against("redis", PINGPONG, "raw"), most=3.0),
    *_crowd("redis", 10, 1.0, 0.5),
    *_crowd("redis", 100, 1.0, 0.5),
    *_rates("postgresql", "kombu", {CONSUME: 20, EACH: 2.5, MANY: 25}),
    Goal("postgresql", "ping-pong, against raw", _against("postgresql", PINGPONG, "raw"), most=1.5),
    *_crowd("postgresql", 10, 1.0, 0.5),
    *_crowd("postgresql", 100, 1.0, 0.5),
    *_rates("sqlite", "kombu", {CONSUME: 25, EACH: 4, MANY: 40}),
    Goal("sqlite", "ping-pong p50", _number("sqlite", PINGPONG, "value"), most=3.0, unit="ms"),
    *_crowd("sqlite", 10, 0.5, 0.9),
    *_rates("mariadb", "kombu", {CONSUME: 10}),
    *_every_broker(),
    *_mailbox(),
    *_worker(),
)

"""What is made of the samples: medians, ratios, goals, tables, the README, the plot."""

import json
import xml.dom.minidom
from pathlib import Path

import pytest

from benchmarks.goals import GOALS
from benchmarks.plot import svg
from benchmarks.report import BEGIN, END, fill_in, goals, measured, plain, readme_block
from benchmarks.results import Results, Row
from benchmarks.runner import all_cases

NUMBERS = (
    *("gain", "least", "round_trips", "worst"),
    *("cpu_parent_us", "cpu_children_us", "idle_cpu", "ready"),
)
FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"


def row(contestant: str, *values: float, case: str = "publish_many", broker: str = "redis") -> Row:
    return Row(case, broker, contestant, "msg/s", [{"value": value} for value in values])


def results(*rows: Row) -> Results:
    return Results(rows, {"date": "2001-02-03", "servers": {"redis": {"server": "Redis 7"}}})


def test_a_ratio_is_that_of_the_medians() -> None:
    found = results(row("ours", 10, 900, 30), row("kombu", 2, 1, 3))
    assert found.ratio("publish_many", "redis", "ours", "kombu") == 15
    assert found.ratio("publish_many", "redis", "ours", "raw") is None
    assert found.ratio("publish_many", "amqp", "ours", "kombu") is None


def test_a_row_without_samples_has_no_median_and_no_spread() -> None:
    empty = row("ours")
    assert empty.median() is None and empty.spread() is None
    assert row("ours", 5).spread() is None
    assert row("ours", 8, 10, 12).spread() == 0.4


def test_numbers_that_only_some_samples_have_are_taken_from_those() -> None:
    one = row("ours", 1, 2)
    one.samples[1]["p99"] = 7.0
    assert one.median("p99") == 7 and one.median("least") is None


def test_results_survive_the_way_through_json() -> None:
    before = results(row("ours", 10, 20))
    after = Results.from_json(before.as_json())
    assert after.as_json() == before.as_json()


def test_what_is_measured_again_replaces_a_case_with_everybody_in_it() -> None:
    results = Results(
        [Row("a", "redis", name, "msg/s") for name in ("ours", "raw")]
        + [Row("a", "sqlite", "ours", "msg/s"), Row("b", "redis", "ours", "msg/s")]
    )
    results.replace([Row("a", "redis", "ours", "msg/s", [{"value": 1.0}])])
    assert results.median("a", "redis", "ours") == 1.0
    assert [(row.case, row.broker, row.contestant) for row in results.rows] == [
        ("a", "sqlite", "ours"),
        ("b", "redis", "ours"),
        ("a", "redis", "ours"),
    ]


@pytest.mark.parametrize(("ours", "verdict"), [(150.0, "reached"), (149.0, "**short**")])
def test_a_goal_is_reached_at_its_limit_and_not_below(ours: float, verdict: str) -> None:
    lines = goals(results(row("ours", ours), row("kombu", 10)))
    assert [line[-1] for line in lines[1:]] == [verdict]


def test_a_goal_that_is_an_upper_limit_is_missed_above_it() -> None:
    rows = [row(name, value, case="ping-pong") for name, value in (("ours", 3.1), ("raw", 1.0))]
    assert goals(results(*rows))[1][1:] == ["ping-pong, against raw", "<= 3", "3.1", "**short**"]


def test_the_depth_goal_of_amqp_is_relative_to_the_bare_driver() -> None:
    rates = {("ours", "1 k"): 100, ("ours", "1 M"): 50, ("raw", "1 k"): 100, ("raw", "1 M"): 40}
    rows = [
        row(name, rate, case=f"consume at depth {depth}", broker="amqp")
        for (name, depth), rate in rates.items()
    ]
    assert goals(results(*rows))[1][3:] == ["0.8", "reached"]


def test_every_goal_looks_at_cases_that_are_asked() -> None:
    """With every row there, every goal finds its number."""

    rows = []
    for case in all_cases():
        for broker in case.brokers:
            for contestant in case.contestants:
                one = row(contestant, 1.0, case=case.name, broker=broker)
                one.samples[0].update(dict.fromkeys(NUMBERS, 1.0))
                rows.append(one)
    found = results(*rows)
    assert [goal.text for goal in GOALS if goal.look(found) is None] == []


def test_a_worker_is_compared_with_the_fastest_who_acks_and_no_other() -> None:
    case = "one task to an idle worker"
    times = {"ours": 1.3, "celery": 2.0, "taskiq": 1.0, "huey": 0.1}
    rows = [row(name, value, case=case) for name, value in times.items()]
    assert goals(results(*rows))[1][3:] == ["1.3", "reached"]


def test_a_mixed_load_is_compared_with_the_best_fixed_prefetch() -> None:
    rates = {"ours": 89, "ours-8": 50, "ours-32": 100}
    rows = [row(name, value, case="mixed load") for name, value in rates.items()]
    assert goals(results(*rows))[1][3:] == ["0.89", "**short**"]


def test_a_deep_queue_may_slow_a_worker_down_only_so_much() -> None:
    rates = {"no-op tasks": 140, "no-op tasks, 1 M queued": 100}
    rows = [row("ours", value, case=case) for case, value in rates.items()]
    assert goals(results(*rows))[1][3:] == ["1.4", "**short**"]


def test_an_error_stands_where_the_number_would() -> None:
    failed = row("raw")
    failed.error = "TimeoutError: gone"
    text = plain(measured(results(row("ours", 12_345), failed)))
    assert "12,300" in text and "TimeoutError: gone" in text


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    filled = fill_in(f"above\n{BEGIN}\nold\n{END}\nbelow\n", "new")
    assert filled == f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"
    assert fill_in(filled, "new") == filled
    with pytest.raises(ValueError, match="marks"):
        fill_in(f"{BEGIN}\n", "new")


def test_the_readme_says_what_the_saved_results_say() -> None:
    saved = Results.from_json(json.loads((FOLDER / "results.json").read_text("utf-8")))
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert fill_in(readme, readme_block(saved)) == readme
    assert svg(saved) == (FOLDER / "results.svg").read_text("utf-8")


def test_the_plot_has_a_bar_for_each_rate() -> None:
    text = svg(results(row("ours", 1000), row("raw", 100_000), row("ours", 3, case="ping-pong")))
    bars = xml.dom.minidom.parseString(text).getElementsByTagName("rect")
    widths = [
        float(bar.getAttribute("width")) for bar in bars if bar.getAttribute("height") == "10"
    ]
    assert len(widths) == 2 and widths[1] == 2 * widths[0]

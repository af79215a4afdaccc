"""The command line: ``python -m benchmarks``; see ``--help``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import BROKERS, PLAIN, Case
from benchmarks.libraries import LIBRARIES
from benchmarks.names import start_run
from benchmarks.plot import svg
from benchmarks.processes import ROOT, BenchError, Processes
from benchmarks.report import fill_in, goals, measured, plain, readme_block
from benchmarks.results import Results, Row
from benchmarks.runner import Plan, all_cases, run

HERE = Path(__file__).resolve().parent
WORK = ROOT / ".queue-core" / "bench"
OURS = Path(sys.executable)
PEERS = Path(os.environ.get("QUEUE_CORE_BENCH_PEERS", ROOT / ".venv-peers"), "bin", "python")
CONTESTANTS = {
    "ours": OURS,
    "raw": OURS,
    "kombu": PEERS,
    **{name: OURS if library.app == "ours" else PEERS for name, library in LIBRARIES.items()},
}
QUICK = ("publish", "consume", "pingpong")
VARIABLES = {
    "redis": "QUEUE_CORE_TEST_REDIS_URL",
    "postgresql": "QUEUE_CORE_TEST_POSTGRES_URL",
    "mariadb": "QUEUE_CORE_TEST_MYSQL_URL",
    "amqp": "QUEUE_CORE_TEST_AMQP_URL",
    "amqp-quorum": "QUEUE_CORE_TEST_AMQP_URL",
}


def main(arguments: Sequence[str]) -> int:
    """Run, print, save; the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.report:
            results = _load(Path(options.report))
        else:
            results = _measure(options)
    except BenchError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130
    _print(results)
    if options.publish:
        publish(results)
    return 1 if any(row.error for row in results.rows) else 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks", description="queue_core, bare drivers and other libraries, in one run."
    )
    brokers, cases = ", ".join(BROKERS), ", ".join(_questions())
    add = parser.add_argument
    add("--peers", action="store_true", help="also kombu and the task libraries (.venv-peers)")
    add("--only", metavar="BROKERS", help=f"some of: {brokers}")
    add("--scenario", metavar="NAMES", help=f"some of: {cases}; or words of a case's name")
    add("--contestants", metavar="NAMES", help=f"some of: {', '.join(CONTESTANTS)}")
    add("--rounds", type=int, default=3, help="samples of each (default 3)")
    add("--scale", type=float, default=1.0, help="1: half a second each; more is steadier")
    add("--quick", action="store_true", help="one minute: rates and latency, one short round")
    add("--thorough", action="store_true", help="also deep queues, many claimers, results, quorum")
    add("--count", type=int, default=0, help="a fixed number of messages per sample")
    add(
        "--json",
        metavar="FILE",
        default="",
        help="default .queue-core/bench/latest.json; beside it a log",
    )
    add(
        "--add-to",
        metavar="FILE",
        help="keep what FILE has of other cases",
    )
    add("--publish", action="store_true", help="write benchmarks/results.json, plot and README")
    add("--report", metavar="FILE", help="measure nothing, print what FILE says")
    return parser


def _load(path: Path) -> Results:
    try:
        return Results.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} holds no results: {type(error).__name__}: {error}") from error


def _questions() -> list[str]:
    return list(dict.fromkeys(case.question for case in all_cases()))


def _measure(options: argparse.Namespace) -> Results:
    cases = _chosen_cases(options)
    contestants = _chosen_contestants(options)
    usual = BROKERS if options.thorough else PLAIN
    brokers = _chosen(options.only, BROKERS, "broker") if options.only else usual
    brokers = [name for name in brokers if any(name in case.brokers for case in cases)]
    _get_servers(brokers)
    WORK.mkdir(parents=True, exist_ok=True)
    start_run()
    file = Path(options.json or WORK / "latest.json")
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=WORK) as folder,
        Processes(CONTESTANTS, file.with_suffix(".log")) as processes,
    ):
        urls = {name: _url(name, Path(folder)) for name in brokers}
        rounds = 1 if options.quick else options.rounds
        seconds = 0.15 if options.quick else 0.5 * options.scale
        trials = 2 if options.thorough else 1
        plan = Plan(cases, urls, contestants, rounds, seconds, trials, options.count)
        results = _load(Path(options.add_to)) if options.add_to else Results(about=_about(rounds))
        for rows in run(plan, processes, _tell):
            results.replace(rows)
            _note_server(results, rows)
            for row in rows:
                _tell(f"  {row.contestant}: {row.error or row.median()}")
            _save(results, file)
    return results


def _chosen_cases(options: argparse.Namespace) -> list[Case]:
    cases = all_cases()
    if not options.scenario:
        if options.quick:
            return [case for case in cases if case.question in QUICK]
        return [case for case in cases if options.thorough or not case.thorough]
    chosen = []
    for word in options.scenario.split(","):
        found = [case for case in cases if word in (case.question, case.name)]
        found = found or [case for case in cases if word in case.name]
        if not found:
            raise BenchError(f"no scenario {word!r}; there are: {', '.join(_questions())}")
        chosen += [case for case in found if case not in chosen]
    return chosen


def _chosen_contestants(options: argparse.Namespace) -> list[str]:
    names = _chosen(options.contestants, tuple(CONTESTANTS), "contestant")
    if not options.peers:
        names = [name for name in names if CONTESTANTS[name] != PEERS]
    for name in names:
        if not CONTESTANTS[name].exists():
            raise BenchError(f"{name} needs {CONTESTANTS[name]}; make bench-peers makes it")
    return names


def _chosen(words: str | None, known: Sequence[str], what: str) -> list[str]:
    if not words:
        return list(known)
    chosen = words.split(",")
    for word in chosen:
        if word not in known:
            raise BenchError(f"no {what} {word!r}; there are: {', '.join(known)}")
    return chosen


def _get_servers(brokers: Sequence[str]) -> None:
    """Go on inside of tools/services.py, which sets the variables, unless they are set."""
    missing = [
        name for name in brokers if name in VARIABLES and not os.environ.get(VARIABLES[name])
    ]
    if not missing:
        return
    if "QUEUE_CORE_BENCH_SERVERS" in os.environ:
        raise BenchError(f"no server for {missing[0]}: {VARIABLES[missing[0]]} is not set")
    os.environ["QUEUE_CORE_BENCH_SERVERS"] = "asked"
    tool = str(ROOT / "tools" / "services.py")
    again = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, tool, "run", "--", *again])


def _url(broker: str, folder: Path) -> str:
    if broker == "memory":
        return "memory://bench"
    if broker == "sqlite":
        return f"sqlite:///{folder}/bench.db"
    return os.environ[VARIABLES[broker]]


def _about(rounds: int) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPUs ({_processor()}), {platform.system()}",
        "python": platform.python_version(),
        "rounds": rounds,
        "load": os.getloadavg()[1],
        "servers": {},
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _note_server(results: Results, rows: Sequence[Row]) -> None:
    """The bare driver has asked the server what it is; that holds for everybody's rows."""
    servers = results.about["servers"]
    for row in rows:
        if "server" in row.facts:
            servers[row.broker] = {name: row.facts[name] for name in ("server", "durability")}
    for row in rows:
        row.facts.update(servers.get(row.broker, {}))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _save(results: Results, path: Path) -> None:
    path.write_text(json.dumps(results.as_json(), indent=1) + "\n", "utf-8")


def _print(results: Results) -> None:
    print(plain(measured(results)))
    table = goals(results)
    if len(table) > 1:
        print()
        print(plain(table))


def publish(results: Results) -> None:
    """Write results, plot and README of this folder."""
    _save(results, HERE / "results.json")
    (HERE / "results.svg").write_text(svg(results), "utf-8")
    readme = HERE / "README.md"
    readme.write_text(fill_in(readme.read_text("utf-8"), readme_block(results)), "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The developer's commands behind the Makefile: check, test, test-fast.

    dev.py check       format, lint, types, import rules
    dev.py test        all of that, then every test with real servers, the README, and the wheel
    dev.py test-fast   check, quick unit tests, the memory store's conformance; no servers, a minute

A run is a row of stages. Each stage runs to its end even when an earlier one failed, in a process
group of its own that is gone afterwards. Then comes a table transport x suite, and as the last
line the counts of the whole run; a check that is not a test counts as one. In `test` a skipped
test is a failure, and so is a missing server.

Servers start in the background while the checks run and end with this process, however it ends.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from processes import MARK, TIMED_OUT, contained, die_with_parent, end_marked
from servers.running import running
from servers.service import ServiceError

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REPORTS = ROOT / ".services" / "reports"
# Seconds for one stage on a loaded machine; all of them together take about a quarter of an hour.
STAGE_LIMIT = 1800.0
FAST_LIMIT = 120.0
SHOWN = 30  # failures that are named again at the end
# Folders of tests/ that are not stages of their own.
IN_UNIT = ("unit", "typing")
IN_DOCS = ("docs", "test_readme.py")


@dataclass
class Case:
    """One test of a report: where it is, and passed, failed or skipped with the reason."""

    name: str
    outcome: str
    reason: str = ""


@dataclass
class Result:
    """What one stage gave."""

    stage: str
    cases: list[Case] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, outcome: str) -> int:
        """How many cases ended like this."""
        return sum(case.outcome == outcome for case in self.cases)


def read_report(path: Path) -> list[Case]:
    """The cases of a junit file as pytest writes it; none when there is no file."""
    if not path.exists():
        return []
    cases = []
    for element in ElementTree.parse(path).iter("testcase"):
        name = f"{element.get('classname')}::{element.get('name')}"
        outcome, reason = "passed", ""
        for child in element:
            if child.tag in ("failure", "error"):
                outcome, reason = "failed", (child.get("message") or "").split("\n")[0]
            elif child.tag == "skipped" and child.get("type") != "pytest.xfail":
                outcome, reason = "skipped", (child.get("message") or "").split("\n")[0]
        cases.append(Case(name, outcome, reason))
    return cases


class Run:
    """The stages of one command and what came of them."""

    def __init__(self, environment: Mapping[str, str], limit: float) -> None:
        self.environment = dict(environment)
        self.limit = limit
        self.results: list[Result] = []

    def _stage(self, name: str, work: Callable[[], list[Case]]) -> None:
        print(f"\n--- {name}", flush=True)
        began = time.monotonic()
        cases = work()
        left = end_marked(self.environment[MARK], 15.0)
        if left:
            cases.append(Case(f"{name}: leaves no process behind", "failed", ", ".join(left)))
        self.results.append(Result(name, cases, time.monotonic() - began))

    def command(self, name: str, *argv: str | Path) -> None:
        """A stage that passes when the command exits with 0."""

        def work() -> list[Case]:
            code = contained([str(word) for word in argv], self.environment, self.limit)
            reason = {0: "", TIMED_OUT: f"not done after {self.limit:g} s"}.get(
                code, f"exit code {code}"
            )
            return [Case(name, "failed" if code else "passed", reason)]

        self._stage(name, work)

    def pytest(
        self,
        name: str,
        *arguments: str | Path,
        python: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        """A stage whose cases are the tests that pytest runs, in ``cwd`` if that is given."""

        def work() -> list[Case]:
            report = REPORTS / f"{name}.xml"
            report.unlink(missing_ok=True)
            # -P: the root of the checkout on sys.path would put our mailbox before the library's.
            argv = [python or sys.executable, "-P", "-m", "pytest", "-q", "-rs", "--tb=short"]
            argv += [f"--junitxml={report}", *arguments]
            words = [str(word) for word in argv]
            code = contained(words, self.environment, self.limit, cwd)
            cases = read_report(report)
            if code and not any(case.outcome == "failed" for case in cases):
                text = {5: "no test was found", TIMED_OUT: f"not done after {self.limit:g} s"}.get(
                    code, f"pytest exit code {code}"
                )
                cases.append(Case(name, "failed", text))
            return cases

        self._stage(name, work)

    def failed(self, name: str, reason: str) -> None:
        """A stage that could not even begin."""
        self._stage(name, lambda: [Case(name, "failed", reason)])


# ---------------------------------------------------------------- stages


def check(run: Run) -> None:
    """Format, lint, types, import rules."""
    run.command("format", BIN / "ruff", "format", "--check", ".")
    run.command("lint", BIN / "ruff", "check", ".")
    run.command("types", BIN / "mypy")
    run.command("types-tools", BIN / "mypy", *sorted((ROOT / "tools").rglob("*.py")))
    run.command("types-benchmarks", BIN / "mypy", "-p", "benchmarks")
    run.command("layers", BIN / "lint-imports", "--no-cache")


def _test_paths(*names: str) -> list[Path]:
    return [ROOT / "tests" / name for name in names if (ROOT / "tests" / name).exists()]


def _unit_paths() -> list[Path]:
    loose = [path.name for path in (ROOT / "tests").glob("test_*.py")]
    return _test_paths(*IN_UNIT, *(name for name in sorted(loose) if name not in IN_DOCS))


def _other_folders() -> list[Path]:
    """The folders of tests/ that are stages of their own, conformance first."""
    folders = [path for path in (ROOT / "tests").iterdir() if any(path.glob("**/test_*.py"))]
    known = {*IN_UNIT, *IN_DOCS}
    return sorted(
        (path for path in folders if path.is_dir() and path.name not in known),
        key=lambda path: (path.name != "conformance", path.name),
    )


# How the tests of a folder share the CPUs: they mostly wait. Where one file's tests look at all
# processes of the machine, or share a server of their own, they stay together.
SPREAD = {
    "acceptance": ["-n", "4", "--dist", "loadfile"],
    "conformance": ["-n", "4", "--dist", "worksteal"],
    "integration": ["-n", "4", "--dist", "loadfile"],
}


def wheel(run: Run) -> None:
    """Build the wheel from a copy, install it with its dependencies elsewhere, use it there."""
    with tempfile.TemporaryDirectory(prefix="queue-core-wheel-") as folder:
        away = Path(folder)
        copy = away / "source"
        unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, symlinks=True, ignore=unwanted)
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input"]
        quiet: list[str | Path] = ["--no-deps", "--no-build-isolation", "-w", away]
        run.command("wheel-build", *pip, "wheel", *quiet, copy)
        built = list(away.glob("queue_core-*.whl"))
        if not built:
            return
        fresh = away / "environment"
        run.command("wheel-venv", sys.executable, "-m", "venv", "--without-pip", fresh)
        python = fresh / "bin" / "python"
        run.command("wheel-install", *pip, "--python", python, "install", built[0])
        smoke = ROOT / "tools" / "smoke.py"
        run.command("wheel-smoke", python, "-P", smoke, ROOT)
        run.command("wheel-version", fresh / "bin" / "queue-core", "--version")
        _wheel_suite(run, away, python)


def _wheel_suite(run: Run, away: Path, python: Path) -> None:
    """The shipped suites on the memory transport, run by the installed wheel.

    Now pytest and hypothesis are borrowed from .venv: the dependencies have been proved already.
    """
    suites = list((ROOT / "tests" / "conformance").glob("test_memory*.py"))
    if not suites:
        run.failed("wheel-suite", "tests/conformance has no test_memory*.py")
        return
    elsewhere = away / "suite"
    (elsewhere / "tests").mkdir(parents=True)
    tests = (ROOT / "tests").glob("*.py")
    shared = [path for path in tests if not path.name.startswith("test_")]
    for path in (*suites, *shared):
        shutil.copy(path, elsewhere / "tests")
    (elsewhere / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    ours = next((BIN.parent / "lib").glob("python*/site-packages"))
    (site / "borrowed.pth").write_text(f"{ours}\n")
    run.pytest(
        "wheel-suite", "--rootdir", elsewhere, elsewhere, "-n", "4", python=python, cwd=elsewhere
    )


def all_tests(run: Run) -> None:
    """Every stage, with servers."""
    with ExitStack() as stack:
        servers = Servers(stack)
        check(run)
        run.pytest("unit", *_unit_paths(), "-n", "3")
        try:
            run.environment.update(servers.await_urls())
        except ServiceError as error:
            run.failed("servers", f"{error.cause} (next: {error.remedy})")
        run.command("peers", "sh", ROOT / "tools" / "peers.sh")
        if not any(folder.name == "conformance" for folder in _other_folders()):
            run.failed("conformance", "tests/conformance has no tests")
        for folder in _other_folders():
            run.pytest(folder.name, folder, *SPREAD.get(folder.name, ()))
        run.pytest("readme", *_test_paths(*IN_DOCS))
        wheel(run)


def fast_tests(run: Run) -> None:
    """What needs no server."""
    run.environment["QUEUE_CORE_TEST_FAST"] = "1"
    check(run)
    run.pytest("unit", *_unit_paths(), "-m", "not slow", "-n", "4")
    folder = ROOT / "tests" / "conformance"
    run.pytest("conformance", folder / "test_memory.py", *SPREAD["conformance"])


class Servers:
    """The servers, obtained on a thread while the stages before them run."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._urls: dict[str, str] = {}
        self._error: ServiceError | None = None
        self._thread = threading.Thread(target=self._obtain, name="servers")
        self._thread.start()
        stack.callback(self._thread.join)

    def _obtain(self) -> None:
        try:
            servers = self._stack.enter_context(running(ROOT / ".services"))
        except ServiceError as error:
            self._error = error
            return
        for server in servers.values():
            self._urls.update(server.environment)

    def await_urls(self) -> dict[str, str]:
        """Block until the servers answer; their urls by environment variable."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._urls


# ---------------------------------------------------------------- report


def table(results: list[Result]) -> list[str]:
    """Lines of a table transport x suite, from the names of files and classes in conformance."""
    cells: dict[tuple[str, str], dict[str, int]] = {}
    for result in results:
        for case in result.cases if result.stage == "conformance" else ():
            place = case.name.partition("::")[0].split(".")
            files = [part for part in place if part.startswith("test_")]
            if not files:
                continue
            transport = files[-1].removeprefix("test_").partition("_")[0]
            last = place[-1] if place[-1] != files[-1] else "(no class)"
            suite = last.removeprefix("Test")
            for word in (
                transport,
                transport.capitalize(),
                transport.upper(),
                "SQLite",
                "Postgres",
            ):
                suite = suite.removeprefix(word)
            counts = cells.setdefault((suite or "Suite", transport), {})
            counts[case.outcome] = counts.get(case.outcome, 0) + 1
    if not cells:
        return []
    transports = sorted({transport for _, transport in cells})
    rows = [["suite", *transports]]
    for suite in sorted({suite for suite, _ in cells}):
        row = [suite]
        for transport in transports:
            counts = cells.get((suite, transport), {})
            parts = [f"{counts[o]} {o}" for o in ("passed", "failed", "skipped") if o in counts]
            row.append(", ".join(parts) or "-")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def report(run: Run, command: str, *, skips_fail: bool) -> int:
    """Print stages, problems, table, and the counts as the last line; the exit code."""
    print("\n--- stages")
    for result in run.results:
        counts = ", ".join(
            f"{result.count(outcome)} {outcome}"
            for outcome in ("passed", "failed", "skipped")
            if result.count(outcome)
        )
        print(f"{result.stage:<14} {counts or 'nothing'} in {result.seconds:.1f} s")
    bad = [(r.stage, c) for r in run.results for c in r.cases if c.outcome == "failed"]
    skipped = [(r.stage, c) for r in run.results for c in r.cases if c.outcome == "skipped"]
    for label, problems in (("failed", bad), ("skipped", skipped)):
        for stage, case in problems[:SHOWN]:
            print(f"{label}: [{stage}] {case.name} - {case.reason[:160]}")
        if len(problems) > SHOWN:
            print(f"{label}: ... and {len(problems) - SHOWN} more")
    lines = table(run.results)
    if lines:
        print("\n--- conformance: transport x suite")
        print("\n".join(lines))
    print()
    fails = bool(bad) or (skips_fail and bool(skipped))
    if fails:
        stages = ", ".join(dict.fromkeys(stage for stage, _ in (bad or skipped)))
        kind = "failed" if bad else "skipped, which counts as failed here"
        print(f"cause: {len(bad or skipped)} {kind}, in: {stages}")
        print(f"next:  read the first failure above, then: make {command}")
    totals = {o: sum(r.count(o) for r in run.results) for o in ("passed", "failed", "skipped")}
    seconds = sum(result.seconds for result in run.results)
    print(
        f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped "
        f"in {seconds:.0f} s",
        flush=True,
    )
    return 1 if fails else 0


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str]) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="dev.py", description="Checks and tests.")
    parser.add_argument("command", choices=("check", "test", "test-fast"))
    command = parser.parse_args(arguments).command
    die_with_parent(signal.SIGTERM)  # make may be killed without a word to us
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # A shell's background job ignores Ctrl-C, and so would everything that is started from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(ROOT)
    REPORTS.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Hundreds of processes are started; without bytecode each would compile all that it imports.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.update(PYTHONPYCACHEPREFIX=str(REPORTS / "bytecode"), PYTHONUNBUFFERED="1")
    environment[MARK] = uuid.uuid4().hex
    run = Run(environment, STAGE_LIMIT if command == "test" else FAST_LIMIT)
    stages = {"check": check, "test": all_tests, "test-fast": fast_tests}
    try:
        stages[command](run)
    except KeyboardInterrupt:
        print("\ncause: interrupted\nnext:  make " + command, file=sys.stderr)
        return 130
    return report(run, command, skips_fail=command == "test")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The command line: what a person sees when something is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from queue_core.testing.eventually import eventually
from tests.acceptance.conftest import WorkerProcess

HERE = Path(__file__).parent
SCRIPT = HERE.parent.parent / "bin" / "queue-core"


def command(*arguments: str, within: float = 50.0, **environment: str):
    clean = {name: value for name, value in os.environ.items() if "QUEUE_CORE" not in name}
    return subprocess.run(
        [sys.executable, "-m", "queue_core.worker.cli", *arguments],
        cwd=HERE,
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


WRONG = {
    "module": (["worker", "-A", "jbs:app"], 2, "-A jobs:app"),
    "attribute": (["worker", "-A", "jobs:ap"], 2, "-A jobs:app"),
    "attribute, threads": (["worker", "-A", "jobs:ap", "-P", "threads"], 2, "-A jobs:app"),
    "file": (["worker", "-A", "jobs.py:app"], 2, "-A jobs:app"),
    "command": (["wroker"], 2, "did you mean 'worker'"),
    "option": (["worker", "-A", "jobs:app", "--concurency", "2"], 2, "--concurrency"),
    "pool": (["worker", "-A", "jobs:app", "-P", "forks"], 2, "prefork"),
    "pool, nearly": (["worker", "-A", "jobs:app", "-P", "treads"], 2, "did you mean 'threads'"),
    "level": (["worker", "-A", "jobs:app", "-l", "inf"], 2, "did you mean 'info'"),
    "duration": (["worker", "-A", "jobs:app", "--drain", "soon"], 2, "no duration"),
    "no app": (["worker"], 2, "--app"),
    "long name": (["worker", "-A", "jobs:app", "-Q", "q" * 300], 2, "queue name 'qqq"),
    "bad name": (["worker", "-A", "jobs:app", "-Q", "mail,a*b"], 2, "queue name 'a*b' holds '*'"),
    "long name, purge": (["purge", "q" * 300, "-b", "redis://127.0.0.1:1"], 2, "255 bytes"),
    "long name, doctor": (["doctor", "redis://127.0.0.1:1", "-Q", "q" * 300], 2, "255 bytes"),
    "no broker": (["worker", "-A", "jobs:app"], 78, "QUEUE_CORE_URL"),
    "scheme": (["worker", "-A", "jobs:app", "-b", "sqlit:///x.db"], 78, "sqlite://"),
    "url option": (["worker", "-A", "jobs:app", "-b", "sqlite:///x.db?synchronus=1"], 78, "option"),
    "memory": (["worker", "-A", "jobs:app", "-b", "memory://"], 78, "-P threads"),
    "features": (["features", "amqq://x"], 78, "amqp://"),
    "explain": (["explain", "nonsense"], 78, "://"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_a_few_lines_with_the_remedy_and_an_exit_code(case):
    arguments, code, hint = WRONG[case]
    done = command(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert done.stderr.startswith("error:")
    assert hint in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("group", [[], ["config"], ["route"]])
def test_a_group_without_a_command_shows_what_there_is(group):
    done = command(*group)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Usage: queue-core") and "Commands:" in done.stderr


def test_a_mistake_in_the_apps_module_is_told_with_its_line(tmp_path):
    lines = ["from queue_core.worker import App", "app = App()", "app.task(max_retry=3)(len)"]
    (tmp_path / "mistaken.py").write_text("\n".join(lines))
    done = command("worker", "-A", "mistaken:app", PYTHONPATH=str(tmp_path))
    assert done.returncode == 78, done.stderr
    assert "did you mean 'max_retries'?" in done.stderr
    assert f"{tmp_path}/mistaken.py:3" in done.stderr and "try:" not in done.stderr


def test_a_misspelt_variable_is_warned_of_and_the_worker_goes_on(tmp_path):
    url = f"sqlite:///{tmp_path}/broker.db"
    done = command(
        *("worker", "-A", "jobs:app", "-b", url, "--check"), QUEUE_CORE_TASK_ACK_LATE="1"
    )
    assert done.returncode == 0, done.stderr
    assert "QUEUE_CORE_TASK_ACK_LATE is no setting" in done.stderr
    assert "did you mean QUEUE_CORE_TASK_ACKS_LATE?" in done.stderr
    assert "chord_deadline" not in done.stderr  # what every app has is not told


def test_a_wrong_password_is_an_access_error_without_the_password(amqp_url):
    scheme, _, rest = amqp_url.partition("://")
    wrong = f"{scheme}://guest:s3cret-wrong@{rest.rpartition('@')[2]}"
    done = command("worker", "-A", "jobs:app", "-b", wrong)
    assert done.returncode == 77, done.stderr
    assert "s3cret-wrong" not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3, "the driver says it too, at length"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_was_started_without_stdout_and_stderr_works(tmp_path, pool):
    arguments = ["-A", "jobs:app", "-b", f"sqlite:///{tmp_path}/broker.db", "-P", pool, "--burst"]
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"]
    command = [*closed, sys.executable, "-m", "queue_core.worker.cli", "worker", *arguments]
    assert subprocess.run(command, cwd=HERE, timeout=50, check=False).returncode == 0


def test_where_nothing_was_said_config_show_says_so(tmp_path):
    (tmp_path / "empty.toml").touch()
    done = command("config", "show", QUEUE_CORE_CONFIG=str(tmp_path / "empty.toml"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing was said; --all shows what is usual" in done.stderr


def test_a_check_does_not_wait_for_a_broker_that_is_away():
    away = ("-b", "amqp://guest:guest@127.0.0.1:1//")
    done = command("worker", "-A", "jobs:app", *away, "--check", within=60)
    assert done.returncode == 69, done.stderr
    assert "nothing listens at 127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_queue_that_is_excluded_but_not_there_is_warned_of(tmp_path):
    url = f"sqlite:///{tmp_path}/broker.db"
    done = command("worker", "-A", "jobs:app", "-b", url, "-Q", "mail", "-X", "mial", "--check")
    assert done.returncode == 0, done.stderr
    assert "-X mial excludes nothing: the queues are mail" in done.stderr


def test_a_worker_waits_for_a_broker_that_is_away_and_can_be_stopped():
    environment = {n: v for n, v in os.environ.items() if "QUEUE_CORE" not in n}
    arguments = ["worker", "-A", "jobs:app", "-b", "amqp://guest:guest@127.0.0.1:1//"]
    with subprocess.Popen(
        [sys.executable, "-m", "queue_core.worker.cli", *arguments],
        cwd=HERE,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        seen = ""
        while "waiting for the broker" not in seen:
            line = process.stderr.readline()
            assert line, f"it ended: {seen}"
            seen += line
        process.terminate()
        assert process.wait(30) == 0


def test_ctrl_c_while_the_command_itself_is_imported_ends_it_without_a_word(tmp_path):
    slow = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "click.py").write_text(slow)
    with subprocess.Popen(
        [sys.executable, "-P", SCRIPT, "worker", "-A", "jobs:app", "-b", "memory://"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_ctrl_c_while_the_first_process_starts_ends_the_worker_without_a_traceback(
    tmp_path, start_method
):
    environment = {"QUEUE_CORE_WORKER_POOL_START_METHOD": start_method}
    arguments = ["-A", "jobs:app", "-b", f"sqlite:///{tmp_path}/broker.db", "-c", "1"]
    for wait in (0.0, 0.01, 0.03):
        worker = WorkerProcess(tmp_path / "log", arguments, environment, session=True)
        try:
            eventually(worker.templates)
            time.sleep(wait)
            os.killpg(worker.process.pid, signal.SIGINT)
            # Python itself dies of the signal if that came while it ran the text of a program.
            assert worker.end() in (0, 130, -signal.SIGINT), worker.log
            assert "Traceback" not in worker.log and "a child ended" not in worker.log
        finally:
            worker.kill()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["worker", "--help"], ["demo", "--help"], ["--version"]]
)
def test_help_loads_no_driver(arguments):
    program = (
        "import sys\nfrom queue_core.worker.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print([name for name in ('pika', 'redis', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) > 1


def test_help_is_there_before_one_notices():
    took = []
    for _ in range(5):
        before = os.times()
        assert command("--help").returncode == 0
        after = os.times()
        took.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    assert min(took) < 0.25  # CPU seconds: 0.13 on an idle machine; a driver costs 0.2 more


def test_features_and_explain_say_what_a_url_means():
    shown = command("features", "sqlite:///x.db")
    assert shown.returncode == 0
    assert any(line.split()[:2] == ["durable", "yes"] for line in shown.stdout.splitlines())
    told = command("explain", "amqp://user:s3cret@host//")
    assert told.returncode == 0
    assert "s3cret" not in told.stdout and "host" in told.stdout

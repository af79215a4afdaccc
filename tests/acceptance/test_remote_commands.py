"""``queue-core inspect``, ``control``, ``nodes`` and ``status`` as processes: with the broker's URL
alone they find nodes, ask and tell them, and end with the code that says how many answered."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_core import Connection, Exchange
from queue_core.testing.eventually import eventually
from tests.freezing import freeze

NODE = Path(__file__).with_name("commanded.py")
SECRET = "0123456789abcdef-hunter2canary"
PATIENT = {
    f"QUEUE_CORE_{name}_TIMEOUT": "20s" for name in ("INSPECT", "CONTROL", "NODES", "STATUS")
}
CLEAN = {name: value for name, value in os.environ.items() if "QUEUE_CORE" not in name}
COMMAND = [sys.executable, "-m", "queue_core.worker.cli"]

Done = subprocess.CompletedProcess[str]


class Fleet:
    """Nodes in a namespace of the test's own, and the command line beside them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.namespace = f"qc-test-{uuid.uuid4().hex[:8]}"
        self.environment = {**CLEAN, **PATIENT, "QUEUE_CORE_URL": url}
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        self._folder = folder

    def start(self, *names: str, secret: str = "") -> None:
        for name in names:
            self.nodes[name] = subprocess.Popen(
                [sys.executable, str(NODE), self.url, self.namespace, name, secret],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        for name in names:
            output = self.nodes[name].stdout
            assert output is not None and output.readline() == f"{name} is there\n"

    def begin(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in a folder where there is no application."""
        return subprocess.Popen(
            [*COMMAND, words[0], *words[1:], "-N", self.namespace],
            cwd=self._folder,
            env=self.environment,
            text=True,
            **{name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")} | options,
        )

    def run(self, *words: str) -> Done:
        process = self.begin(*words, stdin=subprocess.DEVNULL)
        stdout, stderr = process.communicate(timeout=45)
        assert "Traceback" not in stderr
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        done = self.run(*words, "--json")
        assert done.returncode == code, done
        (line,) = done.stdout.splitlines()
        report: dict[str, Any] = json.loads(line)
        assert report["schema"] == 1 and report["namespace"] == self.namespace
        with Connection(self.url) as connection:
            assert report["broker"] == connection.url
        return report

    def close(self) -> None:
        for node in self.nodes.values():
            node.kill()
            node.communicate()
        if self.url.startswith("amqp"):
            with Connection(self.url) as connection:
                pidbox = f"{self.namespace}.pidbox"
                for name in (pidbox, f"{pidbox}.peers", f"reply.{pidbox}"):
                    connection.delete(Exchange(name, durable=False))


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Callable[[str], Fleet]]:
    made: list[Fleet] = []

    def make(url: str) -> Fleet:
        made.append(Fleet(url, tmp_path))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def fleet(broker_url: str, fleets: Callable[[str], Fleet]) -> Fleet:
    """A fleet on each broker, in turn."""
    return fleets(broker_url)


@pytest.fixture
def local(tmp_path: Path, fleets: Callable[[str], Fleet]) -> Fleet:
    """A fleet where the broker makes no difference."""
    url = f"sqlite:///{tmp_path}/broker.db"
    Connection.schema(url, upgrade=True)
    return fleets(url)


# --- on each broker -------------------------------------------------------------------------------


def test_with_the_url_alone_nodes_are_found_asked_and_told(fleet: Fleet) -> None:
    fleet.start("web-1", "mail-1")
    assert fleet.json("nodes")["nodes"] == {"mail-1": {"role": "mail"}, "web-1": {"role": "web"}}
    report = fleet.json("status")
    assert sorted(report["answered_ms"]) == ["mail-1", "web-1"] and report["missing"] == []
    assert all(0 < took < 10_000 for took in report["answered_ms"].values())

    report = fleet.json("inspect", "add", "3", "y:=4", "-d", "web-1")
    assert report["answers"] == {"web-1": 7} and report["method"] == "add"
    for field in ("partial", "errors", "refused", "expired", "missing", "unknown"):
        assert not report[field]
    told = fleet.run("control", "note", "here", "this", "--match", "w*")
    assert (told.returncode, told.stdout, told.stderr) == (0, "web-1: 1\n", "")
    noted = fleet.json("inspect", "noted")["answers"]
    assert noted == {"mail-1": [], "web-1": ["here: this"]}

    assert fleet.run("control", "shutdown").returncode == 0
    for node in fleet.nodes.values():
        assert node.wait(30) == 0
    assert fleet.json("nodes", "-t", "2s", code=4)["nodes"] == {}


def test_who_does_not_answer_or_does_not_exist_is_named_and_the_rest_is_shown(
    fleet: Fleet,
) -> None:
    fleet.start("web-1", "web-2")
    assert fleet.json("status")["missing"] == []  # now they have heard of one another
    asked = ("inspect", "ping", "-d", "web-1,web-2,nobody", "-t", "4s")
    freeze(fleet.nodes["web-2"].pid)
    done = fleet.run(*asked)
    assert (done.returncode, done.stdout) == (3, 'web-1: {"ok": "pong"}\n')
    assert done.stderr == "web-2: did not answer in time\nnobody: is no node here\n"
    report = fleet.json(*asked, code=3)
    assert report["missing"] == ["web-2"] and report["unknown"] == ["nobody"]

    done = fleet.run("status", "-t", "3s")
    assert done.returncode == 3
    assert "web-2  does not answer within 3 s\n1 of 2 nodes answered\n" in done.stdout

    done = fleet.run("inspect", "ping", "-d", "web-2", "-t", "1s")
    assert (done.returncode, done.stdout) == (4, "")
    assert "error:   no node answered in time" in done.stderr
    done = fleet.run("inspect", "ping", "-d", "nobody")
    assert (done.returncode, done.stdout) == (4, "")
    assert "there is no such node" in done.stderr


# --- asking ---------------------------------------------------------------------------------------


def test_people_get_lines_in_the_order_of_names(local: Fleet) -> None:
    local.start("web-1", "mail-1")
    assert local.run("nodes").stdout == "mail-1  role=mail\nweb-1  role=web\n"
    status = local.run("status").stdout.splitlines()
    assert status[0] == f"broker  {local.url}"
    assert [line.partition(" after ")[0] for line in status[1:]] == [
        "mail-1  answers",
        "web-1  answers",
        "2 of 2 nodes answered",
    ]
    done = local.run("inspect", "ping")
    assert done.stdout == 'mail-1: {"ok": "pong"}\nweb-1: {"ok": "pong"}\n'


def test_where_there_is_nobody_every_command_says_so(local: Fleet) -> None:
    asked = ["inspect", "pong", "-t", "500ms"]  # nodes are asked what that is
    for words in (["nodes"], ["status"], ["inspect", "ping"], ["inspect"], ["control", "x"], asked):
        done = local.run(*words)
        assert done.returncode == 4
        assert f"there is no node in the namespace '{local.namespace}'" in done.stderr


def test_inspect_sends_nothing_that_changes_something(local: Fleet) -> None:
    local.start("web-1")
    for words in (["note", "here", "x"], ["note", "place=here", 'words:=["x"]'], ["shutdown"]):
        done = local.run("inspect", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{words[0]} changes something" in done.stderr
        assert f"queue-core control {words[0]}" in done.stderr
    assert local.json("inspect", "noted")["answers"] == {"web-1": []}


def test_without_a_method_the_commands_are_listed_by_what_they_do(local: Fleet) -> None:
    local.start("web-1")
    shown = local.run("inspect").stdout
    assert "add X [Y] " in shown and "  Add two numbers.\n" in shown
    assert "note PLACE" not in shown
    asked = {item["name"] for item in local.json("inspect")["commands"]}
    told = {item["name"] for item in local.json("control")["commands"]}
    assert asked == {"ping", "clock", "commands", "add", "count", "noted", "paint", "fail"}
    assert told == {"note", "shutdown"}


def test_words_and_named_values_become_arguments(local: Fleet) -> None:
    local.start("web-1")
    for words in (["3", "4"], ["x=3", "y=4"], ["x:=3", "4"], ["3", "y:=4"]):
        assert local.json("inspect", "add", *words)["answers"] == {"web-1": 7}
    assert local.run("control", "note", "here", "a", "b c").returncode == 0
    assert local.run("control", "note", "place=there", "d").returncode == 0
    noted = local.json("inspect", "noted")["answers"]["web-1"]
    assert noted == ["here: a", "here: b c", "there: d"]
    assert local.json("inspect", "count", "3")["answers"] == {"web-1": [0, 1, 2]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "add", "1", "2", "3"], "too many words; it is called as: add X [Y]"),
        (["inspect", "add", "x:=["], "what follows := is no JSON"),
        (["inspect", "ad"], "no node knows a command 'ad'; did you mean 'add'?"),
        (["inspect", "ping", "-d", "web-1", "--match", "w*"], "-d names the nodes"),
        (["inspect", "ping", "-d", "web-1", "--first", "1"], "-d names the nodes"),
        (["inspect", "ping", "-d", "web-1,,web-2"], "an empty name"),
        (["inspect", "ping", "--label", "web"], "write KEY=VALUE"),
        (["inspect", "ping", "--label", "a=1", "--label", "a=2"], "the label 'a' is given twice"),
        (["inspect", "ping", "--first", "0"], "--first"),
        (["inspect", "ping", "-t", "0"], "'0' is no time to wait"),
        (["inspect", "ping", "-t", "soon"], "'soon' is no duration"),
        (["inspect", "ping", "-t", "99999999h"], "is no time to wait"),
        (["inspect", "ping", "--key-name", "ops"], "both --key-name and --key-file"),
        (["inspect", "ping", "--jsn"], "--json"),
        (["nodes", "sqlite:///a.db", "-b", "sqlite:///b.db"], "named twice"),
        (["control", ""], "the name of a command, is 1 to"),
        (["control", "a\nb"], "printable letters"),
        (["inspect", "ping", "--match", "w" * 2000], "the pattern has 2000 letters"),
        (["inspekt"], "did you mean 'inspect'?"),
    ],
)
def test_a_wrong_command_line_is_told_what_is_wrong(
    local: Fleet, words: list[str], said: str
) -> None:
    if words[1:2] in (["add"], ["ad"]):
        local.start("web-1")
    done = local.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 3


@pytest.mark.parametrize("command", ["nodes", "status", "inspect ping", "control", "purge jobs"])
def test_a_mistyped_path_is_told_and_not_made(tmp_path: Path, command: str) -> None:
    typo = f"{tmp_path}/typo.db"
    words = [*COMMAND, *command.split(), "-b", f"sqlite:///{typo}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert f"{typo} (there is no such file) has no tables of queue_core" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("namespace", "words"), [("", "is not empty"), ("a*b", "holds '*'")])
def test_a_namespace_that_cannot_be_is_refused(local: Fleet, namespace: str, words: str) -> None:
    local.namespace = namespace
    done = local.run("nodes")
    assert done.returncode == 2
    assert words in done.stderr


def test_who_failed_everywhere_ends_with_1_and_who_failed_somewhere_with_3(local: Fleet) -> None:
    local.start("web-1")
    done = local.run("inspect", "fail")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "web-1: failed: ValueError: as\\nasked \\x1b[31m\n"
    done = local.run("inspect", "add", "x=many")
    assert done.returncode == 1
    assert "the argument 'x' is wrong" in done.stderr
    assert local.run("control", "nosuch").returncode == 1
    assert local.run("inspect", "fail", "-d", "web-1,nobody").returncode == 3
    report = local.json("inspect", "fail", code=1)
    assert report["errors"] == {"web-1": "ValueError: as\nasked \x1b[31m"}


def test_the_first_answers_are_enough_where_that_is_asked_for(local: Fleet) -> None:
    local.start("web-1", "web-2")
    done = local.run("inspect", "ping", "--first", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert len(local.json("inspect", "ping", "--first", "2")["answers"]) == 2
    assert local.run("inspect", "ping", "--first", "3").returncode == 3


def test_labels_and_names_pick_nodes(local: Fleet) -> None:
    local.start("web-1", "mail-1")
    assert set(local.json("inspect", "ping", "--label", "role=web")["answers"]) == {"web-1"}
    assert set(local.json("inspect", "ping", "--match", "*-1")["answers"]) == {"web-1", "mail-1"}
    both = local.json("inspect", "ping", "-d", "web-1", "-d", "mail-1,none", code=3)
    assert set(both["answers"]) == {"web-1", "mail-1"} and both["unknown"] == ["none"]
    done = local.run("inspect", "ping", "--match", "m*", "--label", "role=web")
    assert done.returncode == 4
    assert "there is no such node" in done.stderr


def test_what_a_stream_had_said_by_the_deadline_is_shown(local: Fleet) -> None:
    local.start("web-1")
    words = ("inspect", "count", "1000", "0.05", "-t", "3s")
    report = local.json(*words, code=3)
    assert report["missing"] == ["web-1"]
    assert report["partial"]["web-1"][:2] == [0, 1]
    assert local.run(*words).stdout.startswith("web-1 (not all of it): [")


def test_a_signed_command_is_obeyed_and_another_refused(local: Fleet, tmp_path: Path) -> None:
    local.start("web-1", secret=SECRET)
    key = tmp_path / "ops.key"
    key.write_text(SECRET + "\n")
    done = local.run("control", "note", "here", "x")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr == "web-1: refused: it is not signed\n"
    signed = ("--key-name", "ops", "--key-file", str(key))
    assert local.run("control", "note", "here", "x", *signed).returncode == 0
    key.write_bytes(b"\xff\xfe" * 10)
    done = local.run("control", "note", "here", "x", *signed)
    assert done.returncode == 78
    assert "is no text" in done.stderr
    key.write_text("short")
    done = local.run("control", "note", "here", "x", *signed)
    assert done.returncode == 78
    assert "short" not in done.stderr.replace("too short", "")


# --- printing and ending --------------------------------------------------------------------------


def test_a_terminal_gets_nothing_that_it_would_obey(local: Fleet) -> None:
    local.start("web-1")
    master, slave = pty.openpty()
    process = local.begin("inspect", "paint", stdin=slave, stdout=slave, stderr=slave)
    assert process.wait(30) == 0
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    assert shown == 'web-1: "\\u001b[31mred\\x9b0m"\r\n'
    assert local.json("inspect", "paint")["answers"] == {"web-1": "\x1b[31mred\x9b0m"}


def test_long_answers_are_broken_into_lines_and_short_ones_are_not(local: Fleet) -> None:
    local.start("web-1")
    assert local.run("inspect", "count", "5").stdout == "web-1: [0, 1, 2, 3, 4]\n"
    assert len(local.run("inspect", "count", "50").stdout.splitlines()) == 52


def test_a_reader_who_leaves_is_no_error_that_anybody_sees(local: Fleet) -> None:
    local.start("web-1")
    process = local.begin("inspect", "-t", "5s")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(30)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()


def test_a_full_disk_is_one_line(local: Fleet) -> None:
    local.start("web-1")
    with open("/dev/full", "w") as full:
        process = local.begin("inspect", stdout=full)
        stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert stderr == "error:   [Errno 28] No space left on device\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_ends_at_once_and_leaves_nothing(
    local: Fleet, number: signal.Signals, code: int
) -> None:
    local.start("web-1")
    freeze(local.nodes["web-1"].pid)
    process = local.begin("inspect", "ping", "-t", "60s", stdin=subprocess.DEVNULL)
    eventually(lambda: len(reply_queues(local.url)) == 1)
    process.send_signal(number)
    begun = time.monotonic()
    stdout, stderr = process.communicate(timeout=30)
    assert time.monotonic() - begun < 20
    assert (process.returncode, stdout) == (code, "")
    assert stderr in ("", "\nerror:   interrupted\n")
    assert reply_queues(local.url) == []


def reply_queues(url: str) -> list[str]:
    """The queues of callers that an SQLite broker has."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        names = database.execute("SELECT name FROM queue_core_entry WHERE name LIKE 'q:%reply%'")
        return [name for (name,) in names]


def test_what_keeps_it_from_the_broker_has_its_code_and_no_password(
    local: Fleet, amqp_url: str
) -> None:
    host = amqp_url.partition("@")[2]
    for url, code in (
        ("redis://:hunter2canary@127.0.0.1:1", 69),
        (f"amqp://guest:hunter2canary@{host}", 77),
        ("redis://u:hunter2canary@127.0.0.1:1/x", 78),
        ("nothing://u:hunter2canary@127.0.0.1", 78),
        ("memory://here", 2),
    ):
        local.environment["QUEUE_CORE_URL"] = url
        done = local.run("status")
        assert done.returncode == code, done
        assert done.stdout == ""
        assert done.stderr.startswith("error:")
        assert "hunter2canary" not in done.stderr
    del local.environment["QUEUE_CORE_URL"]
    done = local.run("status")
    assert done.returncode == 2
    assert "-b URL, or QUEUE_CORE_URL" in done.stderr


def test_the_password_of_a_url_is_never_printed(redis_broker: str, fleets: Any) -> None:
    """The test server wants no password; a user without one takes any."""
    url = redis_broker.replace("redis://", "redis://default:hunter2canary@")
    fleet: Fleet = fleets(url)
    for words in (["nodes", "--json"], ["status"], ["status", "--json"], ["inspect", "ping"]):
        done = fleet.run(*words)
        assert "hunter2canary" not in done.stdout + done.stderr
        assert done.returncode in (4, 77)

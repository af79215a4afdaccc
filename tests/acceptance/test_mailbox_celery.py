"""Remote control beside celery and kombu, both as they are published: either side asks the other.

They run in an environment of their own, made by tools/peers.sh.
"""

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from queue_core import Connection, Exchange
from queue_core.mailbox import Mailbox
from queue_core.testing.eventually import eventually

SIDE = Path(__file__).parent / "celery_side"
WITHIN = 60.0


@pytest.fixture(params=["celery", "fresh"])
def namespace(request, amqp_url):
    """celery's own, and one in which nobody has declared anything yet."""
    if request.param == "celery":
        yield "celery"
        return
    name = f"qc-test-{uuid.uuid4().hex[:8]}"
    yield name
    with Connection(amqp_url) as connection:
        for exchange in (f"{name}.pidbox", f"{name}.pidbox.peers", f"reply.{name}.pidbox"):
            connection.delete(Exchange(exchange))


@pytest.fixture
def start(peers, amqp_url, namespace):
    """Start a program of theirs; it is killed after the test."""
    started = []

    def run(program, *arguments):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        started.append(
            subprocess.Popen(
                [peers / program, *arguments],
                cwd=SIDE,
                env={**clean, "BROKER": amqp_url, "NAMESPACE": namespace},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def celery(start):
    """Run celery's command line and return what it printed as JSON, by node."""

    def run(*arguments):
        words = ["-A", "program", *arguments, "-j", "-t", "10" if "-d" in arguments else "3"]
        output = start("celery", *words).communicate(timeout=WITHIN)[0]
        lines = [line for line in output.splitlines() if line.startswith(("{", "[{"))]
        assert lines, output
        found = json.loads(lines[-1])
        return found if isinstance(found, dict) else {k: v for one in found for k, v in one.items()}

    return run


@pytest.fixture
def box(amqp_url, namespace):
    with Connection(amqp_url) as connection, Mailbox(namespace, connection, mixed=True) as made:
        yield made


@pytest.fixture
def name():
    return f"celery@qc-test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def serve(box, name):
    """Start a node of ours that looks like a worker of celery's."""
    made = box.node(name, {})

    @made.handler
    def active(state, safe: bool = False):
        return [{"id": "1", "name": "program.add"}]

    @made.handler
    def stats(state):
        return {"pid": os.getpid()}

    @made.handler(kind="control")
    def rate_limit(state, task_name: str, rate_limit: str):
        state[task_name] = rate_limit
        return {"ok": "new rate limit set successfully"}

    @made.handler(kind="admin")
    def shutdown(state):
        raise SystemExit

    return made.start


@pytest.mark.timeout(180)
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_celerys_inspect_and_control_reach_our_node(start, celery, serve, name, first):
    if first == "theirs":
        output = start("celery", "-A", "program", "inspect", "ping", "-d", name).communicate()[0]
        assert "No nodes replied" in output
    node = serve()
    assert celery("inspect", "ping", "-d", name)[name] == {"ok": "pong"}
    assert celery("inspect", "active", "-d", name)[name] == [{"id": "1", "name": "program.add"}]
    assert celery("inspect", "stats", "-d", name)[name] == {"pid": os.getpid()}
    assert celery("inspect", "ping")[name] == {"ok": "pong"}
    answer = celery("control", "-d", name, "rate_limit", "program.add", "5/s")
    assert answer[name] == {"ok": "new rate limit set successfully"}
    assert node.state == {"program.add": "5/s"}
    start("celery", "-A", "program", "control", "-d", name, "shutdown").communicate()
    assert node.wait(30)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_our_mailbox_reaches_celerys_worker(start, celery, box, name, namespace, first):
    if first == "ours":
        assert box.call([name], "ping", timeout=5).unknown == {name}
        box.multi_call("ping", timeout=0.1)
    queue = name.replace("celery@", "")
    start("celery", "-A", "program", "worker", "-c", "1", "-P", "solo", "-n", name, "-Q", queue)
    eventually(lambda: name in box.call([name], "ping", timeout=2.0), WITHIN)
    answers = box.call([name], "registered", timeout=10)
    assert answers[name] == ["program.add"]
    wrong = box.call([name], "no_such_command", timeout=10)
    assert "no_such_command" in str(wrong.errors[name])
    ours = f"{name}.ours"
    with box.node(ours):
        for everybody in (box.multi_call("ping", timeout=4.0), celery("inspect", "ping")):
            assert everybody[name] == everybody[ours] == {"ok": "pong"}


@pytest.mark.parametrize("namespace", ["fresh"], indirect=True)
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_kombus_mailbox_reaches_our_node(start, box, namespace, first):
    if first == "theirs":
        start("python", "program.py", "client", namespace, "nobody", "0.2").communicate(
            timeout=WITHIN
        )
    with box.node("ours", []) as node:

        @node.handler
        def double(state, number: int):
            return number * 2

        @node.handler(kind="control")
        def note(state, text: str):
            state.append(text)

        client = start("python", "program.py", "client", namespace, "ours")
        said = json.loads(client.communicate(timeout=WITHIN)[0].splitlines()[-1])
        wrong = said.pop("wrong")[0]["ours"]["error"]
        assert "the argument 'number' is wrong" in wrong
        assert said == {
            "call": [{"ours": 2}],
            "all": [{"ours": 4}],
            "glob our*": [{"ours": 6}],
            r"pcre o\w+s$": [{"ours": 6}],
            "glob their*": [],
        }
        eventually(lambda: node.state == ["cast", "abcast"])


@pytest.mark.parametrize("namespace", ["fresh"], indirect=True)
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_our_mailbox_reaches_a_node_of_kombu(start, box, namespace, first):
    if first == "ours":
        assert box.call(["theirs"], "double", timeout=5).unknown == {"theirs"}
        box.multi_call("double", timeout=0.1)
    process = start("python", "program.py", "node", namespace, "theirs")
    assert process.stdout.readline() == "ready\n"
    assert dict(box.call(["theirs"], "double", {"number": 4}, timeout=10)) == {"theirs": 8}
    assert dict(box.multi_call("double", {"number": 5}, timeout=10, limit=1)) == {"theirs": 10}
    asked = box.multi_call("double", {"number": 6}, timeout=10, limit=1, match="their*")
    assert dict(asked) == {"theirs": 12}
    asked = box.multi_call("double", {"number": 7}, timeout=10, limit=1, regex=r"the\w+$")
    assert dict(asked) == {"theirs": 14}
    assert "theirs" in box.call(["theirs"], "double", timeout=10).errors

"""Where a test server comes from, in which order, and what is left of it; with a small server."""

import importlib
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"
SECRET = "hunter2canary"
GREETER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello")
"""


@pytest.fixture
def tools(monkeypatch):
    """The modules under test; servers run as whoever runs the tests, in folders of pytest's."""
    monkeypatch.syspath_prepend(str(TOOLS))
    names = ("obtaining", "private", "running", "service")
    modules = {name: importlib.import_module(f"servers.{name}") for name in names}
    monkeypatch.setattr(modules["private"], "_unprivileged", lambda *names: None)
    return SimpleNamespace(keeper=importlib.import_module("keeper"), **modules)


class Greeter:
    """A service whose server says hello; a namespace is a name in a list."""

    name = title = "greeter"
    variable = "QUEUE_CORE_TEST_GREETER_URL"
    standard = "hello://127.0.0.1:1"
    packages = ("greeter-server",)
    user = "nobody"
    ports = 1

    def __init__(self, tools, *, before=(), script=GREETER, installed=True):
        self.tools, self.before, self.script, self.installed = tools, before, script, installed
        self.namespaces = []

    def check(self, url):
        port = int(url.rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            if connection.recv(5) != b"hello":
                raise OSError("it does not say hello")

    def add_namespace(self, server, name):
        self.namespaces.append(name)
        return f"{server.url}/{name}"

    def drop_namespace(self, server):
        self.namespaces.remove(server.namespace)

    def program(self):
        return Path(sys.executable) if self.installed else None

    def recipe(self, program, place):
        (place.data / "data" / "treasure").touch()
        process = self.tools.keeper.Process
        port = str(place.ports[0])
        return self.tools.service.Recipe(
            [process([str(program), "-c", self.script, port], {})],
            before=[process(list(argv), {}) for argv in self.before],
        )

    def url(self, port, password):
        return f"hello://greeter:{password}@127.0.0.1:{port}"


@pytest.fixture
def pipe():
    """What a server has that ends with its owner."""
    reader, writer = os.pipe()
    yield reader
    os.close(writer)
    os.close(reader)


def gone(server):
    deadline = time.monotonic() + 20
    while server.alive() or (Path(server.folder) / "data").exists():
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)
    return True


def test_a_private_server_answers_and_leaves_nothing_but_its_log(tools, pipe, tmp_path):
    greeter = Greeter(tools)
    server = tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    greeter.check(server.url)
    assert server.environment == {greeter.variable: server.url}
    tools.private.stop(greeter, server)
    assert gone(server)
    with pytest.raises(ConnectionRefusedError):
        greeter.check(server.url)


def test_the_url_of_the_environment_goes_before_everything(tools, pipe, tmp_path, monkeypatch):
    greeter = Greeter(tools)
    private = tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    monkeypatch.setenv(greeter.variable, private.url)
    given = tools.obtaining.obtain(greeter, tmp_path, private, owner=pipe)
    assert (given.url, given.keeper, given.namespace) == (private.url, 0, "")
    tools.private.stop(greeter, given)
    greeter.check(private.url)


def test_a_url_of_the_environment_that_is_of_no_use_is_no_reason_to_look_further(
    tools, pipe, tmp_path, monkeypatch
):
    greeter = Greeter(tools)
    monkeypatch.setenv(greeter.variable, f"hello://me:{SECRET}@127.0.0.1:1")
    with pytest.raises(tools.service.ServiceError, match=greeter.variable) as caught:
        tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    assert "refused" in caught.value.cause and "unset" in caught.value.remedy
    assert SECRET not in f"{caught.value.cause} {caught.value.remedy}"
    assert list(tmp_path.iterdir()) == []


def test_a_server_of_an_earlier_up_is_shared_and_only_the_namespace_goes(tools, pipe, tmp_path):
    greeter = Greeter(tools)
    earlier = tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    shared = tools.obtaining.obtain(greeter, tmp_path, earlier, owner=pipe)
    assert shared.url == f"{earlier.url}/{shared.namespace}"
    assert greeter.namespaces == [shared.namespace]
    tools.private.stop(greeter, shared)
    assert greeter.namespaces == []
    greeter.check(earlier.url)


def test_a_server_on_the_standard_port_is_used_if_it_gives_us_a_namespace(tools, pipe, tmp_path):
    greeter = Greeter(tools)
    standing = tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    greeter.standard = standing.url
    found = tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    assert found.url.startswith(standing.url) and greeter.namespaces == [found.namespace]

    def refuse(server, name):
        raise tools.service.ServiceError("no", "ask")

    greeter.add_namespace = refuse
    private = tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    assert not private.url.startswith(standing.url) and private.keeper


@pytest.mark.parametrize(
    ("recipe", "cause"),
    [
        ({"script": "raise SystemExit('no room')"}, "ended while starting"),
        ({"before": [[sys.executable, "-c", "print('no room'); exit(3)"]]}, "ended while starting"),
    ],
    ids=["its process ends", "its preparation fails"],
)
def test_a_server_that_does_not_start_says_where_its_output_is(
    tools, pipe, tmp_path, recipe, cause
):
    greeter = Greeter(tools, **recipe)
    with pytest.raises(tools.service.ServiceError, match=cause) as caught:
        tools.obtaining.obtain(greeter, tmp_path, None, owner=pipe)
    log = Path(caught.value.remedy.removeprefix("less "))
    assert "no room" in log.read_text()
    assert not list(tmp_path.glob("*/greeter/data"))


def test_what_cannot_be_had_is_named_with_the_package(tools, pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(tools.obtaining, "find_program", lambda name: None)
    with pytest.raises(tools.service.ServiceError, match="greeter is missing") as caught:
        tools.obtaining.obtain(Greeter(tools, installed=False), tmp_path, None, owner=pipe)
    assert caught.value.remedy == "sudo apt-get install greeter-server"


def test_one_missing_server_does_not_leave_the_others_running(tools, tmp_path, monkeypatch):
    good, bad = Greeter(tools), Greeter(tools, script="raise SystemExit(1)")
    bad.name = "mute"
    monkeypatch.setattr(tools.running, "SERVICES", (good, bad))
    started = []
    monkeypatch.setattr(
        tools.running, "stop", lambda service, server: started.append((service, server))
    )
    with (
        pytest.raises(tools.service.ServiceError, match="did not start"),
        tools.running.running(tmp_path),
    ):
        pytest.fail("a server is missing")
    [(service, server)] = started
    assert service is good
    assert gone(server)  # by the end of the pipe alone
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [
        path.name for path in tmp_path.glob(f"queue-core-{os.getpid()}-*")
    ]


def test_what_up_started_is_known_to_the_next_up_and_ended_by_down(tools, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.running, "SERVICES", (Greeter(tools),))
    tools.running.up(tmp_path)
    [first] = tools.running.recorded(tmp_path).values()
    tools.running.up(tmp_path)
    [second] = tools.running.recorded(tmp_path).values()
    assert first == second and first.alive()
    assert (tmp_path / "env").read_text() == f"{Greeter.variable}={first.url}\n"
    assert (tmp_path / "env").stat().st_mode & 0o077 == 0
    tools.running.down(tmp_path)
    assert gone(first)
    assert not (tmp_path / "env").exists()

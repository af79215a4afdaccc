"""Finds or starts the servers that the integration tests need.

    services.py up                  start detached, write .services/env, print it
    services.py down                stop what `up` started
    services.py run -- COMMAND      start, run COMMAND with the urls in its environment, stop

For each service the first of these that works is used:

1. the url in its environment variable; if that one does not answer, fail;
2. a private server that an earlier `up` started in the same folder;
3. a server that answers the real handshake on the standard port with the default login and lets us
   make a namespace of our own; the namespace is dropped at the end, and nothing outside it is
   touched;
4. a private server from installed binaries: free loopback ports, its own folder, an unprivileged
   user;
5. Debian or Ubuntu as root: the packages are installed without being started, then as 4;
6. docker compose, with tools/compose.yaml.

A private server lives under a keeper (see keeper.py) and cannot outlive its owner. Everything is
written under the folder ``.services``, except where an unprivileged server user cannot reach it:
then under the system's folder for temporary files. Standard library only, Python 3.11: this runs
before anything is installed. Every failure is one line with the cause and one with the next
command.

A further service is a class with the methods of `Service`, added to `SERVICES`.
"""

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from amqp_probe import NoAnswer, probe
from keeper import Plan, Process
from processes import born, contained
from redis_probe import probe as probe_redis

ROOT = Path(__file__).resolve().parent.parent
START_DEADLINE = 90.0  # seconds for a private server to let us in
INSTALL_DEADLINE = 600.0  # seconds for packages or an image to arrive
UNAVAILABLE = 69  # the exit code of a missing service, as in sysexits.h


class ServiceError(Exception):
    """A service cannot be had: the cause, and what to do next."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


@dataclass
class Server:
    """A server that the tests may use. Kept as JSON, so that another process can stop it.

    ``environment`` is what the tests see; ``control`` prefixes the server's own administration
    command and ``control_environment`` goes with it; ``keeper`` is the process id and birth of the
    keeper, if we started one.
    """

    service: str
    url: str
    origin: str
    environment: dict[str, str]
    folder: str = ""
    keeper: int = 0
    keeper_born: str = ""
    namespace: str = ""
    control: list[str] = field(default_factory=list)
    control_environment: dict[str, str] = field(default_factory=dict)

    def alive(self) -> bool:
        """Whether the keeper that was started for this server is still running."""
        return self.keeper > 0 and born(self.keeper) == self.keeper_born


class Service(Protocol):
    """What the commands need to know about one kind of server."""

    name: str
    title: str
    variable: str
    packages: tuple[str, ...]  # of Debian

    def check(self, url: str) -> None:
        """Return if the server at ``url`` lets us work, else raise `NoAnswer` with the cause.

        Blocks a few seconds at most.
        """

    def find(self, run: str) -> Server | None:
        """A server on the standard port, with a namespace ``run`` made for us, or None."""

    def join(self, server: Server, run: str) -> Server:
        """The same private server with a namespace of its own named ``run``."""

    def start(self, folder: Path, *, owner: int | None) -> Server | None:
        """Start a private server in ``folder``; None when its binaries are not installed.

        ``owner`` is the reading end of a pipe whose end stops the server, None for a detached one.
        Blocks until the server lets us in, at most `START_DEADLINE`.
        """

    def compose(self, folder: Path, *, owner: int | None) -> Server:
        """The same with docker compose."""

    def stop(self, server: Server) -> None:
        """Drop the namespace of `find` and `join`; stop the server of `start` and `compose`."""


# ---------------------------------------------------------------- for every service


def say(text: str) -> None:
    """One line of progress, on standard error, so that standard output stays for results."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now; all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def unprivileged(*names: str) -> tuple[int, int] | None:
    """User and group id of the first of ``names`` that exists, else nobody's.

    None when we are not root.
    """
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise ServiceError("no unprivileged user to run a server as", "run: useradd --system nobody")


def private_folder(folder: Path, name: str, owner: tuple[int, int] | None) -> Path:
    """An empty folder for a server's data that ``owner`` can reach, with no blank in its path."""
    wanted = folder / name
    parents = list(wanted.parents)
    folder.mkdir(parents=True, exist_ok=True)
    reachable = owner is None or all(p.stat().st_mode & 0o001 for p in parents if p.exists())
    if not reachable or any(c.isspace() for c in str(wanted)) or len(str(wanted)) > 100:
        wanted = Path(tempfile.mkdtemp(prefix=f"queue-core-{name}-", dir="/tmp"))
    else:
        shutil.rmtree(wanted, ignore_errors=True)
        wanted.mkdir()
    wanted.chmod(0o755)
    if owner is not None:
        os.chown(wanted, *owner)
    return wanted


def _perishable(data: Path, folder: Path) -> list[str]:
    """What goes when a server stops: all but the logs; everything if it lies outside ``folder``."""
    return [str(data / "data"), str(data / "home")] if data.parent == folder else [str(data)]


def owned_file(path: Path, text: str, owner: tuple[int, int] | None, mode: int = 0o644) -> Path:
    """Write a file of the server user."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    if owner is not None:
        os.chown(path, *owner)
    return path


def keep(plan: Plan, plan_file: Path, owner: int | None) -> tuple[int, str]:
    """Start a keeper for ``plan``; its process id and birth. It leads a session of its own."""
    plan.owned = owner is not None
    plan.save(plan_file)
    with open(os.path.join(plan.folder, "keeper.log"), "ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("keeper.py")), str(plan_file)],
            stdin=subprocess.DEVNULL if owner is None else owner,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return keeper.pid, born(keeper.pid) or ""


def end_keeper(server: Server, patience: float = 20.0) -> None:
    """Stop a keeper and wait until it is gone; kill its session if it does not go."""
    if not server.alive():
        return
    os.kill(server.keeper, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while server.alive() and time.monotonic() < deadline:
        _reap(server.keeper)
        time.sleep(0.05)
    if server.alive():
        say(f"{server.service} did not stop within {patience:g} s; killing it")
        os.killpg(server.keeper, signal.SIGKILL)
        _reap(server.keeper)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # started by another command


def await_ready(service: Service, server: Server, deadline: float = START_DEADLINE) -> None:
    """Block until a freshly started server lets us in; stop it and raise when it does not."""
    began = time.monotonic()
    cause = "no attempt was made"
    output = Path(server.folder, "output.log")
    kept = output.parent.parent / f"{service.name}-failed.log"
    while time.monotonic() - began < deadline:
        _reap(server.keeper)
        if not server.alive():
            cause = "the process ended while starting"
            break
        try:
            service.check(server.url)
        except NoAnswer as error:
            cause = str(error)
            time.sleep(0.2)
        else:
            say(f"{service.title} answers after {time.monotonic() - began:.1f} s ({server.origin})")
            return
    if output.exists():
        kept.write_bytes(output.read_bytes())
    end_keeper(server)
    raise ServiceError(f"{service.title} did not start: {cause}", f"less {kept}")


def run_quietly(
    argv: list[str], environment: Mapping[str, str] | None = None, limit: float = 60
) -> str:
    """Run an administration command to its end; its output. Raises `ServiceError` when it fails."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"{argv[0]} failed: {error}", "run it by hand") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ServiceError(
            f"{argv[0]} failed: {lines[-1] if lines else 'no output'}", "run it by hand"
        )
    return done.stdout


# ---------------------------------------------------------------- RabbitMQ


class RabbitMQ:
    """RabbitMQ 3.10 and later. A namespace is a virtual host."""

    name = "rabbitmq"
    title = "RabbitMQ"
    variable = "QUEUE_CORE_TEST_AMQP_URL"
    packages: tuple[str, ...] = ("rabbitmq-server",)

    def check(self, url: str) -> None:
        """See `Service.check`: handshake, login, virtual host."""
        probe(url)

    def find(self, run: str) -> Server | None:
        """See `Service.find`; the virtual host is made by rabbitmqctl or the management API."""
        try:
            probe("amqp://guest:guest@127.0.0.1:5672/")
        except NoAnswer:
            return None
        server = Server(self.name, "", "the server on port 5672", {}, namespace=run)
        # The system's own command first: on Debian it becomes the user that may talk to the node.
        control = shutil.which("rabbitmqctl", path=f"/usr/sbin:{_search_path()}")
        for prefix in ([control] if control else None, []):
            if prefix is None:
                continue
            server.control = prefix
            try:
                self._change(server, "add")
                probe(self._with_vhost(server, 5672).url)
            except ServiceError:
                continue
            except NoAnswer:  # the command administers another node than the one on the port
                self._change(server, "delete")
                continue
            return server
        say("a RabbitMQ answers on port 5672, but gives us no virtual host of our own; not used")
        return None

    def join(self, server: Server, run: str) -> Server:
        """See `Service.join`."""
        joined = Server(**{**asdict(server), "namespace": run, "keeper": 0, "keeper_born": ""})
        joined.origin = f"{server.origin}, started earlier"
        self._by_command(joined, "add")
        return self._with_vhost(joined, int(server.url.rpartition(":")[2].partition("/")[0]))

    def start(self, folder: Path, *, owner: int | None) -> Server | None:
        """See `Service.start`: own node name, cookie, home, data, logs, ports; no plugin."""
        program = shutil.which("rabbitmq-server", path=_search_path())
        epmd = _epmd()
        if program is None or epmd is None:
            return None
        user = unprivileged("rabbitmq")
        data = private_folder(folder, self.name, user)
        port, distribution, names = free_ports(3)
        node = f"queue-core-{uuid.uuid4().hex[:8]}@localhost"
        environment = self._prepare(data, user, node, port, distribution, names)
        plan = Plan(
            folder=str(data),
            processes=[
                Process([epmd, "-port", str(names), "-address", "127.0.0.1"], environment),
                Process([program], environment),
            ],
            remove=_perishable(data, folder),
        )
        if user is not None:
            plan.user, plan.group = user
        pid, birth = keep(plan, data / "plan.json", owner)
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        server = Server(
            self.name,
            url,
            f"private node {node}, port {port}",
            {self.variable: url, "QUEUE_CORE_TEST_AMQP_NODE": node},
            folder=str(data),
            keeper=pid,
            keeper_born=birth,
            control=[
                *_as_user(user),
                str(Path(program).with_name("rabbitmqctl")),
                "-q",
                "-n",
                node,
            ],
            control_environment=environment,
        )
        await_ready(self, server)
        return server

    def compose(self, folder: Path, *, owner: int | None) -> Server:
        """See `Service.compose`."""
        data = private_folder(folder, self.name, None)
        (port,) = free_ports(1)
        project = f"queue-core-{uuid.uuid4().hex[:8]}"
        command = ["docker", "compose", "-p", project, "-f", str(ROOT / "tools" / "compose.yaml")]
        environment = {**os.environ, "QUEUE_CORE_AMQP_PORT": str(port)}
        plan = Plan(
            folder=str(data),
            processes=[
                Process([*command, "up", "--no-color", self.name], environment, signal.SIGTERM)
            ],
            grace=20.0,
            after=[[*command, "down", "--volumes"]],
        )
        pid, birth = keep(plan, data / "plan.json", owner)
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        server = Server(
            self.name,
            url,
            f"docker compose project {project}, port {port}",
            {self.variable: url},
            folder=str(data),
            keeper=pid,
            keeper_born=birth,
            control=[*command, "exec", "-T", self.name, "rabbitmqctl", "-q"],
            control_environment=environment,
        )
        await_ready(self, server, INSTALL_DEADLINE)
        return server

    def stop(self, server: Server) -> None:
        """See `Service.stop`."""
        if server.keeper:
            end_keeper(server)
        elif server.namespace:
            self._change(server, "delete")

    @staticmethod
    def _prepare(
        data: Path,
        user: tuple[int, int] | None,
        node: str,
        port: int,
        distribution: int,
        names: int,
    ) -> dict[str, str]:
        """Write a node's files below ``data``; its whole environment (nothing of ours in it)."""
        for name in ("data", "home", "log"):
            (data / name).mkdir()
            if user is not None:
                os.chown(data / name, *user)
        owned_file(data / "home" / ".erlang.cookie", uuid.uuid4().hex, user, 0o400)
        owned_file(data / "plugins", "[].\n", user)
        owned_file(data / "environment", "", user)
        owned_file(
            data / "rabbitmq.conf",
            f"listeners.tcp.1 = 127.0.0.1:{port}\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.console = false\n",
            user,
        )
        # -noinput: the start script runs the node in the foreground only if it may read; there is
        # nothing to read. +sbwt: schedulers that spin while idle would take both cores from the
        # tests.
        arguments = "-noinput +sbwt none +sbwtdcpu none +sbwtdio none"
        arguments += " -kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": _search_path(),
            "HOME": str(data / "home"),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONF_ENV_FILE": str(data / "environment"),
            "RABBITMQ_CONFIG_FILE": str(data / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(data / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(data / "data"),
            "RABBITMQ_SCHEMA_DIR": str(data / "data" / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(data / "data" / "config"),
            "RABBITMQ_LOG_BASE": str(data / "log"),
            "RABBITMQ_PID_FILE": str(data / "node.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments,
        }

    def _with_vhost(self, server: Server, port: int) -> Server:
        server.url = f"amqp://guest:guest@127.0.0.1:{port}/{server.namespace}"
        server.environment = {**server.environment, self.variable: server.url}
        return server

    def _change(self, server: Server, action: str) -> None:
        """Add or delete the server's namespace. Raises `ServiceError`."""
        (self._by_command if server.control else self._by_management)(server, action)

    @staticmethod
    def _by_command(server: Server, action: str) -> None:
        environment = server.control_environment or None
        run_quietly([*server.control, f"{action}_vhost", server.namespace], environment)
        if action == "add":
            everything = ["guest", ".*", ".*", ".*"]
            permit = [*server.control, "set_permissions", "-p", server.namespace, *everything]
            run_quietly(permit, environment)

    @staticmethod
    def _by_management(server: Server, action: str) -> None:
        base = "http://127.0.0.1:15672/api"
        requests: list[tuple[str, str, dict[str, str]]] = [
            ("PUT" if action == "add" else "DELETE", f"/vhosts/{server.namespace}", {})
        ]
        if action == "add":
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            requests.append(("PUT", f"/permissions/{server.namespace}/guest", everything))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for method, path, body in requests:
            request = urllib.request.Request(base + path, json.dumps(body).encode(), method=method)
            request.add_header("Content-Type", "application/json")
            request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")  # guest:guest
            try:
                opener.open(request, timeout=5).close()
            except OSError as error:
                raise ServiceError(f"the management API failed: {error}", "enable it") from error


def _search_path() -> str:
    """PATH, led by the folders in which distributions hide RabbitMQ's own commands.

    They come first because Debian's commands on the usual PATH insist on the system's user.
    """
    hidden = [
        "/usr/lib/rabbitmq/bin",
        "/opt/rabbitmq/sbin",
        "/opt/homebrew/sbin",
        "/usr/local/sbin",
    ]
    usual = os.environ.get("PATH", "").split(os.pathsep)
    system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return os.pathsep.join(dict.fromkeys(p for p in (*hidden, *usual, *system) if p))


def _epmd() -> str | None:
    found = shutil.which("epmd", path=_search_path())
    if found:
        return found
    inside = sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
    return str(inside[-1]) if inside else None


def _as_user(user: tuple[int, int] | None) -> list[str]:
    """The prefix that runs a command as ``user``; empty when we are not root."""
    if user is None:
        return []
    return ["setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups"]


# ---------------------------------------------------------------- Redis


class Redis:
    """Redis 6.2 and later. There are no namespaces: each test has a key prefix of its own."""

    name = "redis"
    title = "Redis"
    variable = "QUEUE_CORE_TEST_REDIS_URL"
    packages: tuple[str, ...] = ("redis-server",)

    def check(self, url: str) -> None:
        """See `Service.check`: login, database, no eviction, scripts."""
        probe_redis(url)

    def find(self, run: str) -> Server | None:
        """See `Service.find`; the tests delete the keys that they make."""
        url = "redis://127.0.0.1:6379/0"
        try:
            probe_redis(url)
        except NoAnswer:
            return None
        return Server(self.name, url, "the server on port 6379", {self.variable: url})

    def join(self, server: Server, run: str) -> Server:
        """See `Service.join`; there is nothing to make."""
        joined = Server(**{**asdict(server), "keeper": 0, "keeper_born": ""})
        joined.origin = f"{server.origin}, started earlier"
        return joined

    def start(self, folder: Path, *, owner: int | None) -> Server | None:
        """See `Service.start`: own port and folder, nothing on disk."""
        program = shutil.which("redis-server", path=_search_path())
        if program is None:
            return None
        user = unprivileged("redis")
        data = private_folder(folder, self.name, user)
        (data / "data").mkdir()
        if user is not None:
            os.chown(data / "data", *user)
        (port,) = free_ports(1)
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--daemonize", "no"]
        command += ["--save", "", "--appendonly", "no", "--dir", str((data / "data").resolve())]
        environment = {"PATH": _search_path(), "LANG": "C.UTF-8"}
        plan = Plan(
            folder=str(data),
            processes=[Process(command, environment)],
            remove=_perishable(data, folder),
        )
        if user is not None:
            plan.user, plan.group = user
        return self._await(plan, data, port, owner, f"private server, port {port}")

    def compose(self, folder: Path, *, owner: int | None) -> Server:
        """See `Service.compose`."""
        data = private_folder(folder, self.name, None)
        (port,) = free_ports(1)
        project = f"queue-core-{uuid.uuid4().hex[:8]}"
        command = ["docker", "compose", "-p", project, "-f", str(ROOT / "tools" / "compose.yaml")]
        environment = {**os.environ, "QUEUE_CORE_REDIS_PORT": str(port)}
        plan = Plan(
            folder=str(data),
            processes=[
                Process([*command, "up", "--no-color", self.name], environment, signal.SIGTERM)
            ],
            grace=20.0,
            after=[[*command, "down", "--volumes"]],
        )
        return self._await(
            plan, data, port, owner, f"docker compose project {project}", INSTALL_DEADLINE
        )

    def stop(self, server: Server) -> None:
        """See `Service.stop`."""
        end_keeper(server)

    def _await(
        self,
        plan: Plan,
        data: Path,
        port: int,
        owner: int | None,
        origin: str,
        deadline: float = START_DEADLINE,
    ) -> Server:
        pid, birth = keep(plan, data / "plan.json", owner)
        url = f"redis://127.0.0.1:{port}/0"
        server = Server(
            self.name,
            url,
            origin,
            {self.variable: url},
            folder=str(data),
            keeper=pid,
            keeper_born=birth,
            control=["redis-cli", "-p", str(port)],
        )
        await_ready(self, server, deadline)
        return server


SERVICES: tuple[Service, ...] = (RabbitMQ(), Redis())


# ---------------------------------------------------------------- the order of looking


def _on_debian() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(service: Service) -> None:
    """Install the service's Debian packages without letting them start anything."""
    say(f"installing {' '.join(service.packages)} with apt-get (nothing is started system-wide)")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "install", *service.packages]
    try:
        try:
            run_quietly(command, environment, INSTALL_DEADLINE)
        except ServiceError:
            run_quietly(["apt-get", "-q", "update"], environment, INSTALL_DEADLINE)
            run_quietly(command, environment, INSTALL_DEADLINE)
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def _docker_answers() -> bool:
    try:
        run_quietly(["docker", "compose", "version"], limit=20)
        run_quietly(["docker", "info"], limit=20)
    except ServiceError:
        return False
    return True


def obtain(service: Service, folder: Path, *, owner: int | None) -> Server:
    """A server by the rules of this module's docstring; `ServiceError` when there is none.

    ``folder`` is where private servers keep their files; ``owner`` as in `Service.start`. May take
    minutes when something has to be installed.
    """
    run = f"queue-core-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    given = os.environ.get(service.variable)
    if given:
        try:
            service.check(given)
        except NoAnswer as error:
            raise ServiceError(
                f"{service.title}: the server of {service.variable} does not let us in: {error}",
                f"start it, or unset {service.variable}",
            ) from error
        return Server(service.name, given, f"from {service.variable}", {service.variable: given})
    earlier = recorded(folder).get(service.name)
    if owner is not None and earlier is not None and earlier.alive() and earlier.control:
        return service.join(earlier, run)
    found = service.find(run)
    if found is not None:
        return found
    where = folder if owner is None else folder / run
    try:
        server = service.start(where, owner=owner)
        if server is None and _on_debian():
            install(service)
            server = service.start(where, owner=owner)
    except ServiceError as error:
        raise ServiceError(f"{service.title}: {error.cause}", error.remedy) from error
    if server is not None:
        return server
    if _docker_answers():
        return service.compose(where, owner=owner)
    raise ServiceError(
        f"{service.title} is missing: {service.variable} is not set, and there is no server on "
        "the standard port, no installed program and no docker",
        f"sudo apt-get install {' '.join(service.packages)}",
    )


# ---------------------------------------------------------------- what runs, on disk


def _state_file(folder: Path) -> Path:
    return folder / "state.json"


def recorded(folder: Path) -> dict[str, Server]:
    """The servers that `up` recorded in ``folder``, by service name."""
    try:
        raw = json.loads(_state_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: Server(**fields) for name, fields in raw.items()}


def record(folder: Path, servers: Mapping[str, Server]) -> None:
    """Write state.json (for `down`) and env (``NAME=value`` lines, for shells and developers)."""
    folder.mkdir(parents=True, exist_ok=True)
    if not servers:
        _state_file(folder).unlink(missing_ok=True)
        (folder / "env").unlink(missing_ok=True)
        return
    states = {name: asdict(server) for name, server in servers.items()}
    _state_file(folder).write_text(json.dumps(states, indent=1), encoding="utf-8")
    lines = [f"{k}={v}\n" for server in servers.values() for k, v in server.environment.items()]
    (folder / "env").write_text("".join(lines), encoding="utf-8")


def clear_leftovers(folder: Path) -> None:
    """Remove the folders of earlier runs whose process is gone."""
    for run in folder.glob("queue-core-*"):
        pid = run.name.split("-")[2]
        if not pid.isdigit() or born(int(pid)) is None:
            shutil.rmtree(run, ignore_errors=True)


def up(folder: Path, services: tuple[Service, ...] = SERVICES) -> dict[str, Server]:
    """Start every service detached, unless it is running already, and record them in ``folder``."""
    servers = recorded(folder)
    for service in services:
        current = servers.get(service.name)
        if current is not None and current.alive():
            say(f"{service.title} is running already ({current.origin})")
            continue
        servers[service.name] = obtain(service, folder, owner=None)
        record(folder, servers)
    return servers


def down(folder: Path, services: tuple[Service, ...] = SERVICES) -> int:
    """Stop what `up` recorded in ``folder``; 0. Nothing recorded is fine."""
    servers = recorded(folder)
    for service in services:
        server = servers.pop(service.name, None)
        if server is not None:
            service.stop(server)
            say(f"{service.title} stopped ({server.origin})")
        record(folder, servers)
    return 0


@contextmanager
def running(folder: Path, services: tuple[Service, ...] = SERVICES) -> Iterator[dict[str, Server]]:
    """Servers for the length of a with block. They end with this process, however it ends."""
    clear_leftovers(folder)
    servers: dict[str, Server] = {}
    reader, writer = os.pipe()
    try:
        for service in services:
            servers[service.name] = obtain(service, folder, owner=reader)
        yield servers
    finally:
        for service in services:
            if service.name in servers:
                service.stop(servers[service.name])
        os.close(writer)
        os.close(reader)
        clear_leftovers(folder)


# ---------------------------------------------------------------- command line


def _run(folder: Path, command: list[str]) -> int:
    with running(folder) as servers:
        environment = dict(os.environ)
        for server in servers.values():
            environment.update(server.environment)
        return contained(command, environment, None)


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str]) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="services.py", description="Servers for the integration tests."
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".services", help="default: .services"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start detached and write FOLDER/env")
    commands.add_parser("down", help="stop what up started")
    runner = commands.add_parser("run", help="start, run a command, stop")
    runner.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.resolve()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    actions: dict[str, Callable[[], int]] = {
        "up": lambda: 0 if up(folder) else 1,
        "down": lambda: down(folder),
        "run": lambda: _run(
            folder, options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        ),
    }
    if options.command == "run" and not options.argv:
        parser.error("run needs a command")
    try:
        code = actions[options.command]()
    except ServiceError as error:
        print(f"cause: {error.cause}\nnext:  {error.remedy}", file=sys.stderr)
        return UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    if options.command == "up":
        sys.stdout.write((folder / "env").read_text(encoding="utf-8"))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Starting and ending a private server, of any kind: folder, user, ports, keeper."""

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from keeper import Plan, Process
from processes import born

from servers.service import Place, Server, Service, ServiceError

TOOLS = Path(__file__).resolve().parent.parent
START_DEADLINE = 90.0  # seconds for a private server to let us in
INSTALL_DEADLINE = 600.0  # seconds for packages or an image to arrive
LONGEST_PATH = 80  # characters; a server may add the name of a socket, and a socket has 107


def say(text: str) -> None:
    """One line of progress, on standard error, so that standard output stays for results."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def search_path(*first: str) -> str:
    """PATH for a server's programs: ``first``, ours, and where distributions put daemons."""
    usual = os.environ.get("PATH", "").split(os.pathsep)
    system = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/opt/homebrew/sbin"]
    return os.pathsep.join(dict.fromkeys(p for p in (*first, *usual, *system) if p))


def find_program(name: str, *first: str) -> Path | None:
    """The program ``name`` on `search_path`, or None."""
    found = shutil.which(name, path=search_path(*first))
    return Path(found) if found else None


def run_quietly(
    argv: list[str], environment: Mapping[str, str] | None = None, limit: float = 60
) -> None:
    """Run an administration command to its end. Raises `ServiceError` when it fails."""
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
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise ServiceError(f"{argv[0]} failed: {lines[-1]}", "run it by hand")


def why_not(service: Service, url: str) -> str | None:
    """Why the server at ``url`` is of no use, in one line; None when it is."""
    try:
        service.check(url)
    except Exception as error:  # whatever a driver raises; the caller shows it
        return (str(error).strip() or repr(error)).splitlines()[0]
    return None


def start(service: Service, program: Path, folder: Path, *, owner: int | None) -> Server:
    """Start a private server in ``folder``.

    ``owner`` is the reading end of a pipe whose end stops the server, None for a detached one.
    Blocks until the server lets us in, at most `START_DEADLINE`; raises `ServiceError` then.
    """
    user = _unprivileged(service.user)
    place = Place(
        _private_folder(folder, service.name, user),
        user,
        _free_ports(service.ports),
        secrets.token_hex(12),
    )
    recipe = service.recipe(program, place)
    data = place.data
    # All but the logs goes when the server ends, and everything if it lies outside of ``folder``.
    remove = [data / "data", data / "home"] if data.parent == folder else [data]
    plan = Plan(
        folder=str(data),
        before=recipe.before,
        processes=recipe.processes,
        remove=[str(path) for path in remove],
    )
    if user is not None:
        plan.user, plan.group = user
    port = place.ports[0]
    url = service.url(port, place.password)
    server = Server(service.name, url, f"private server, port {port}", {service.variable: url})
    server.control = place.account()
    server.control_environment = recipe.processes[-1].environment
    log = folder / f"{service.name}.log"
    return _launched(service, server, plan, log, owner, START_DEADLINE)


def start_composed(service: Service, folder: Path, *, owner: int | None) -> Server:
    """The same as `start` with docker compose; the image has `INSTALL_DEADLINE` to arrive."""
    data = _private_folder(folder, service.name, None)
    (port,) = _free_ports(1)
    password = secrets.token_hex(12)
    project = f"queue-core-{uuid.uuid4().hex[:8]}"
    command = ["docker", "compose", "-p", project, "-f", str(TOOLS / "compose.yaml")]
    environment = {
        **os.environ,
        "QUEUE_CORE_PORT": str(port),
        "QUEUE_CORE_PASSWORD": password,
    }
    up = Process([*command, "up", "--no-color", service.name], environment)
    up.death_signal = signal.SIGTERM
    plan = Plan(
        folder=str(data), processes=[up], grace=20.0, after=[[*command, "down", "--volumes"]]
    )
    url = service.url(port, password)
    origin = f"docker compose project {project}, port {port}"
    server = Server(service.name, url, origin, {service.variable: url})
    server.control = [*command, "exec", "-T", service.name]
    server.control_environment = environment
    log = folder / f"{service.name}.log"
    return _launched(service, server, plan, log, owner, INSTALL_DEADLINE)


def stop(service: Service, server: Server) -> None:
    """Stop what we started, or drop the namespace that we made in somebody else's server."""
    if server.keeper:
        _end_keeper(server)
    elif server.namespace:
        service.drop_namespace(server)


def keep(plan: Plan, output: Path, owner: int | None) -> tuple[int, str]:
    """Start a keeper for ``plan``; its process id and birth. It leads a session of its own.

    What it and its processes say goes to the file ``output``.
    """
    plan.owned = owner is not None
    plan_file = Path(plan.folder, "plan.json")
    plan.save(plan_file)
    with output.open("wb") as log, open(os.devnull, "rb") as nothing:
        source = nothing.fileno() if owner is None else owner
        streams = ((source, 0), (log.fileno(), 1), (log.fileno(), 2))
        # No Popen: whoever ends the keeper may be another process, and nobody waits for it here.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, str(TOOLS / "keeper.py"), str(plan_file)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, given, wanted) for given, wanted in streams],
            setsid=True,
        )
    return pid, born(pid) or ""


def _launched(
    service: Service, server: Server, plan: Plan, log: Path, owner: int | None, deadline: float
) -> Server:
    """The server once it lets us in; it is stopped when it does not."""
    server.folder = plan.folder
    server.keeper, server.keeper_born = keep(plan, log, owner)
    began = time.monotonic()
    while (cause := why_not(service, server.url)) is not None:
        _reap(server.keeper)
        if not server.alive():
            cause = "the process ended while starting"
        elif time.monotonic() - began < deadline:
            time.sleep(0.1)
            continue
        _end_keeper(server)
        raise ServiceError(f"{service.title} did not start: {cause}", f"less {log}")
    say(f"{service.title} answers after {time.monotonic() - began:.1f} s ({server.origin})")
    return server


def _end_keeper(server: Server, patience: float = 20.0) -> None:
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


def _free_ports(count: int) -> list[int]:
    """Loopback ports that are free now; all different.

    Below those that systems give to outgoing connections: a server may need its port seconds later.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        for port in random.sample(range(20_000, 32_768), 1_000):
            one = stack.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise ServiceError("no port is free between 20000 and 32767", "see: ss -tln")


def _unprivileged(*names: str) -> tuple[int, int] | None:
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


def _private_folder(folder: Path, name: str, owner: tuple[int, int] | None) -> Path:
    """A folder for a server that ``owner`` can reach, with no blank in its path; see `Place`."""
    wanted = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    reachable = owner is None or all(p.stat().st_mode & 0o001 for p in wanted.parents if p.exists())
    if not reachable or any(c.isspace() for c in str(wanted)) or len(str(wanted)) > LONGEST_PATH:
        wanted = Path(tempfile.mkdtemp(prefix=f"queue-core-{name}-", dir="/tmp"))
    else:
        shutil.rmtree(wanted, ignore_errors=True)
        wanted.mkdir()
    wanted.chmod(0o755)
    parts = [wanted / part for part in ("data", "home", "log")]
    for part in parts:
        part.mkdir(0o700)
    if owner is not None:
        for path in (wanted, *parts):
            os.chown(path, *owner)
    return wanted


def owned_file(place: Place, name: str, text: str, mode: int = 0o600) -> Path:
    """Write a file of the server's user below ``place.data``; its path."""
    path = place.data / name
    path.touch(mode)
    path.chmod(mode | 0o200)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    if place.user is not None:
        os.chown(path, *place.user)
    return path

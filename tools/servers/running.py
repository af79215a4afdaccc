"""All the servers at once: started side by side, recorded in a folder, ended."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from processes import born

from servers.mariadb import MariaDB
from servers.obtaining import obtain
from servers.postgresql import PostgreSQL
from servers.private import say, stop
from servers.rabbitmq import RabbitMQ
from servers.redis import Redis
from servers.service import Server, Service

SERVICES: tuple[Service, ...] = (RabbitMQ(), Redis(), PostgreSQL(), MariaDB())


def recorded(folder: Path) -> dict[str, Server]:
    """The servers that `up` recorded in ``folder``, by service name."""
    try:
        raw = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: Server(**fields) for name, fields in raw.items()}


def record(folder: Path, servers: Mapping[str, Server]) -> None:
    """Write state.json (for `down`) and env (``NAME=value`` lines, for shells and developers)."""
    if not servers:
        for name in ("state.json", "env"):
            (folder / name).unlink(missing_ok=True)
        return
    states = {name: asdict(server) for name, server in servers.items()}
    lines = [f"{k}={v}\n" for server in servers.values() for k, v in server.environment.items()]
    for name, text in (("state.json", json.dumps(states, indent=1)), ("env", "".join(lines))):
        path = folder / name
        path.touch(0o600)  # there are passwords in them
        path.write_text(text, encoding="utf-8")


def up(folder: Path) -> None:
    """Start every service detached, unless it is running already, and record them in ``folder``.

    Raises `ServiceError` for the first that cannot be had; the others run and are recorded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    servers = recorded(folder)
    for server in servers.values():
        if server.alive():
            say(f"{server.service} is running already ({server.origin})")
    missing = [one for one in SERVICES if one.name not in servers or not servers[one.name].alive()]
    try:
        _obtain_all(missing, folder, servers, owner=None)
    finally:
        record(folder, servers)


def down(folder: Path) -> None:
    """Stop what `up` recorded in ``folder``. Nothing recorded is fine."""
    _stop_all(recorded(folder))
    record(folder, {})


@contextmanager
def running(folder: Path) -> Iterator[dict[str, Server]]:
    """Servers for the length of a with block. They end with this process, however it ends."""
    _clear_leftovers(folder)
    servers: dict[str, Server] = {}
    reader, writer = os.pipe()
    try:
        _obtain_all(SERVICES, folder, servers, owner=reader)
        yield servers
    finally:
        _stop_all(servers)
        os.close(writer)
        os.close(reader)
        _clear_leftovers(folder)


def _obtain_all(
    services: Sequence[Service], folder: Path, servers: dict[str, Server], *, owner: int | None
) -> None:
    """Add what was obtained to ``servers``, also when something else could not be had."""
    earlier = recorded(folder)

    def one(service: Service) -> None:
        servers[service.name] = obtain(service, folder, earlier.get(service.name), owner=owner)

    _side_by_side(one, services)


def _stop_all(servers: Mapping[str, Server]) -> None:
    def one(service: Service) -> None:
        stop(service, servers[service.name])
        say(f"{service.title}: done with {servers[service.name].origin}")

    _side_by_side(one, [service for service in SERVICES if service.name in servers])


def _side_by_side(work: Callable[[Service], None], services: Sequence[Service]) -> None:
    """Work for each service on a thread of its own, to the end of all; raise the first error.

    Ctrl-C is raised only then too, so that nobody is left alone with half a server.
    """
    pool = ThreadPoolExecutor(len(SERVICES))
    jobs = [pool.submit(work, service) for service in services]
    try:
        wait(jobs)
    finally:
        pool.shutdown()
    for job in jobs:
        job.result()


def _clear_leftovers(folder: Path) -> None:
    """Remove the folders of earlier runs whose process is gone."""
    for run in folder.glob("queue-core-*"):
        pid = run.name.split("-")[2]
        if not pid.isdigit() or born(int(pid)) is None:
            shutil.rmtree(run, ignore_errors=True)

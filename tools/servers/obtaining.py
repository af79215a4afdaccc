"""Looking for one server, in the order that the package's docstring gives."""

import os
import shutil
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from servers.private import (
    INSTALL_DEADLINE,
    find_program,
    run_quietly,
    say,
    start,
    start_composed,
    why_not,
)
from servers.service import Server, Service, ServiceError

_installing = threading.Lock()  # apt-get bears no second one beside it


def obtain(service: Service, folder: Path, earlier: Server | None, *, owner: int | None) -> Server:
    """A server by the rules of the package's docstring; `ServiceError` when there is none.

    ``folder`` is where private servers keep their files, ``earlier`` what `up` has recorded there,
    and ``owner`` as in `private.start`. May take minutes when something has to be installed.
    """
    given = os.environ.get(service.variable)
    if given:
        return _given(service, given)
    run = f"queue-core-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    if owner is not None and earlier is not None and earlier.alive():
        return _shared(service, earlier, f"{earlier.origin}, started earlier", run)
    found = _standing(service, run)
    if found is not None:
        return found
    where = folder if owner is None else folder / run
    try:
        program = service.program() or _installed(service)
        if program is not None:
            return start(service, program, where, owner=owner)
    except ServiceError as error:
        raise ServiceError(f"{service.title}: {error.cause}", error.remedy) from error
    if _docker_answers():
        return start_composed(service, where, owner=owner)
    raise ServiceError(
        f"{service.title} is missing: {service.variable} is not set, and there is no server on "
        "the standard port, no installed program and no docker",
        f"sudo apt-get install {' '.join(service.packages)}",
    )


def _given(service: Service, url: str) -> Server:
    problem = why_not(service, url)
    if problem is not None:
        raise ServiceError(
            f"{service.title}: the server of {service.variable} is of no use: {problem}",
            f"start it, or unset {service.variable}",
        )
    return Server(service.name, url, f"from {service.variable}", {service.variable: url})


def _standing(service: Service, run: str) -> Server | None:
    """The server on the standard port, if it lets us work in a namespace named ``run``."""
    if why_not(service, service.standard) is not None:
        return None
    origin = f"the server on port {urlsplit(service.standard).port}"
    server = Server(service.name, service.standard, origin, {})
    try:
        return _shared(service, server, origin, run)
    except ServiceError as error:
        say(f"{service.title}: {origin} gives us no namespace of our own ({error}); not used")
        return None


def _shared(service: Service, server: Server, origin: str, run: str) -> Server:
    """The same server, seen as a namespace named ``run`` in it that goes at the end."""
    shared = replace(server, origin=origin, namespace=run, keeper=0, keeper_born="")
    shared.url = service.add_namespace(shared, run)
    shared.environment = {service.variable: shared.url}
    return shared


def _installed(service: Service) -> Path | None:
    """Install the Debian packages without letting them start anything; the program then."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    with _installing:
        say(f"installing {' '.join(service.packages)} with apt-get (no service is started)")
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
    return service.program()


def _docker_answers() -> bool:
    if find_program("docker") is None:
        return False
    try:
        run_quietly(["docker", "compose", "version"], limit=20)
        run_quietly(["docker", "info"], limit=20)
    except ServiceError:
        return False
    return True

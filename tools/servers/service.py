"""What one kind of server has to know, and what is known about one server."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from keeper import Process
from processes import born


class ServiceError(Exception):
    """A service cannot be had: the cause, and what to do next."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


@dataclass
class Server:
    """A server that the tests may use. Kept as JSON, so that another process can stop it.

    ``environment`` is what the tests see. ``control`` is the prefix under which the server's own
    administration command runs, in ``control_environment``. ``keeper`` is the process id of the
    keeper, if we started one, and ``keeper_born`` its birth; ``namespace`` is what has to be
    dropped at the end, if we made one.
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


@dataclass
class Place:
    """What a private server is given.

    ``data`` is a folder of its own with the empty folders ``data``, ``home`` and ``log`` in it,
    which the user with the ids ``user`` owns (None: we are not root and stay who we are). ``ports``
    are free on the loopback interface; clients connect to the first of them.
    """

    data: Path
    user: tuple[int, int] | None
    ports: list[int]
    password: str

    def account(self) -> list[str]:
        """The prefix that runs a command as the server's user; empty when we are not root."""
        if self.user is None:
            return []
        ids = [f"--reuid={self.user[0]}", f"--regid={self.user[1]}"]
        return ["setpriv", *ids, "--clear-groups"]


@dataclass
class Recipe:
    """How to run a private server: commands that make its files, then its processes."""

    processes: list[Process]
    before: list[Process] = field(default_factory=list)


class Service(Protocol):
    """One kind of server."""

    name: str  # also in compose.yaml
    title: str
    variable: str  # of the environment, for the url
    standard: str  # the url of a server as its packages leave it
    packages: tuple[str, ...]  # of Debian
    user: str  # who runs it on Debian
    ports: int  # how many a private server needs

    def check(self, url: str) -> None:
        """Return if the server at ``url`` lets us do what the tests do.

        Raises anything else; the first line of the exception is shown as the cause. Blocks a few
        seconds at most.
        """

    def add_namespace(self, server: Server, name: str) -> str:
        """Make a namespace in a server that `check` let us into; the url of the namespace.

        Raises `ServiceError` when that is not possible. May set ``server.control``.
        """

    def drop_namespace(self, server: Server) -> None:
        """Remove ``server.namespace`` with everything in it. Raises `ServiceError`."""

    def program(self) -> Path | None:
        """The server's program, or None when not all that `recipe` needs is installed."""

    def recipe(self, program: Path, place: Place) -> Recipe:
        """How to run a private server in ``place``; writes its settings there."""

    def url(self, port: int, password: str) -> str:
        """The url of a private server, and of a server of compose.yaml."""

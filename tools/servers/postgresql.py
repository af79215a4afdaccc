"""PostgreSQL 15 and later. A namespace is a database.

The tests make roles whose names begin with that of the database, and schemas for them.
"""

import signal
from pathlib import Path

from keeper import Process

from servers.databases import ask, change, change_each, named
from servers.private import find_program, owned_file, search_path
from servers.service import Place, Recipe, Server, ServiceError


class PostgreSQL:
    """See `Service`. A private server commits as safely as a real one: that is tested."""

    name = "postgresql"
    title = "PostgreSQL"
    variable = "QUEUE_CORE_TEST_POSTGRES_URL"
    standard = "postgresql://postgres@127.0.0.1:5432/postgres"
    packages: tuple[str, ...] = ("postgresql",)
    user = "postgres"
    ports = 1

    def check(self, url: str) -> None:
        """See `Service.check`: a superuser, since tests end each other's connections."""
        if not ask(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            raise ServiceError("this user is no superuser", "take another one")

    def add_namespace(self, server: Server, name: str) -> str:
        """See `Service.add_namespace`."""
        change(server.url, f'CREATE DATABASE "{name}"')
        return named(server.url, name)

    def drop_namespace(self, server: Server) -> None:
        """See `Service.drop_namespace`."""
        elsewhere = named(server.url, "postgres")
        change(elsewhere, f'DROP DATABASE "{server.namespace}" WITH (FORCE)')
        change_each(
            elsewhere,
            "SELECT format('DROP ROLE %%I', rolname) FROM pg_roles "
            f"WHERE starts_with(rolname, '{server.namespace}_')",
        )

    def program(self) -> Path | None:
        """See `Service.program`; Debian hides it, and keeps each version in a folder."""
        versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
        newest = max(versions, key=lambda path: float(path.parts[-3]), default=None)
        found = newest or find_program("postgres")
        return found if found and found.with_name("initdb").exists() else None

    def recipe(self, program: Path, place: Place) -> Recipe:
        """See `Service.recipe`: settings of its own, else as delivered."""
        environment = {"PATH": search_path(), "LANG": "C.UTF-8"}
        data = str(place.data / "data")
        password = owned_file(place, "home/password", place.password)
        init = [str(program.with_name("initdb")), "-D", data, "-U", "postgres"]
        init += ["-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C"]
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(place.data),
            "dynamic_shared_memory_type": "mmap",  # nothing is left of it after SIGKILL
            "shared_buffers": "32MB",
            "max_connections": "200",
        }
        command = [str(program), "-D", data, "-p", str(place.ports[0])]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # SIGTERM would wait until the last client has gone, and its processes lead groups of their
        # own; what SIGQUIT leaves undone is of no use, since the data goes too.
        return Recipe(
            [Process(command, environment, stop_signal=signal.SIGQUIT)],
            before=[Process([*init, "--no-sync"], environment)],
        )

    def url(self, port: int, password: str) -> str:
        """See `Service.url`."""
        return f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"

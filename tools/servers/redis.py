"""Redis 6.2 and later. There are no namespaces: each test has a key prefix of its own."""

from pathlib import Path

from keeper import Process
from redis import Redis as Client

from servers.private import find_program, search_path
from servers.service import Place, Recipe, Server


class Redis:
    """See `Service`. A private server keeps nothing on disk."""

    name = "redis"
    title = "Redis"
    variable = "QUEUE_CORE_TEST_REDIS_URL"
    standard = "redis://127.0.0.1:6379/0"
    packages: tuple[str, ...] = ("redis-server",)
    user = "redis"
    ports = 1

    def check(self, url: str) -> None:
        """See `Service.check`: login, database, no eviction, scripts."""
        with Client.from_url(
            url, socket_timeout=5, socket_connect_timeout=5, decode_responses=True
        ) as client:
            if client.info("memory").get("maxmemory_policy") != "noeviction":
                raise RuntimeError("it evicts keys; set maxmemory-policy noeviction")
            client.eval("return redis.call('TIME')[1]", 0)

    def add_namespace(self, server: Server, name: str) -> str:
        """See `Service.add_namespace`: there is nothing to make."""
        return server.url

    def drop_namespace(self, server: Server) -> None:
        """See `Service.drop_namespace`: the tests delete the keys that they make."""

    def program(self) -> Path | None:
        """See `Service.program`."""
        return find_program("redis-server")

    def recipe(self, program: Path, place: Place) -> Recipe:
        """See `Service.recipe`."""
        command = [str(program), "--port", str(place.ports[0]), "--bind", "127.0.0.1"]
        command += ["--daemonize", "no", "--save", "", "--appendonly", "no"]
        command += ["--dir", str((place.data / "data").resolve())]
        return Recipe([Process(command, {"PATH": search_path(), "LANG": "C.UTF-8"})])

    def url(self, port: int, password: str) -> str:
        """See `Service.url`: who reaches the port is let in."""
        return f"redis://127.0.0.1:{port}/0"

"""MariaDB 10.8 and later. A namespace is a database.

The tests make databases and users whose names begin with that of the database.
"""

from pathlib import Path

from keeper import Process

from servers.databases import ask, change, change_each, named
from servers.private import find_program, owned_file, search_path
from servers.service import Place, Recipe, Server, ServiceError


class MariaDB:
    """See `Service`. A private server commits as safely as a real one: that is tested."""

    name = "mariadb"
    title = "MariaDB"
    variable = "QUEUE_CORE_TEST_MYSQL_URL"
    standard = "mysql://root@127.0.0.1:3306/mysql"
    packages: tuple[str, ...] = ("mariadb-server",)
    user = "mysql"
    ports = 1

    def check(self, url: str) -> None:
        """See `Service.check`: a MariaDB, and a user who may make users."""
        version = ask(url, "SELECT version()")
        if "MariaDB" not in version:
            raise ServiceError(f"{version} is not MariaDB", "take another one")
        rights = ask(url, "SHOW GRANTS")
        if "ALL PRIVILEGES ON *.*" not in rights or "WITH GRANT OPTION" not in rights:
            raise ServiceError("this user may not make databases and users", "take another one")

    def add_namespace(self, server: Server, name: str) -> str:
        """See `Service.add_namespace`."""
        change(server.url, f"CREATE DATABASE `{name}`")
        return named(server.url, name)

    def drop_namespace(self, server: Server) -> None:
        """See `Service.drop_namespace`."""
        elsewhere = named(server.url, "mysql")
        change(elsewhere, f"DROP DATABASE `{server.namespace}`")
        ours = f"LIKE '{server.namespace}\\_%%'"
        change_each(
            elsewhere,
            "SELECT concat('DROP DATABASE `', schema_name, '`') FROM information_schema.schemata "
            f"WHERE schema_name {ours}",
        )
        change_each(
            elsewhere,
            f"SELECT concat('DROP USER `', user, '`@`', host, '`') FROM user WHERE user {ours}",
        )

    def program(self) -> Path | None:
        """See `Service.program`."""
        return find_program("mariadbd") if find_program("mariadb-install-db") else None

    def recipe(self, program: Path, place: Place) -> Recipe:
        """See `Service.recipe`: settings of its own, else as delivered, not as on Debian."""
        environment = {"PATH": search_path(), "LANG": "C.UTF-8"}
        data = f"--datadir={place.data / 'data'}"
        # root@localhost is for the system's user, by the socket; over TCP there is another one.
        accounts = owned_file(
            place,
            "home/accounts.sql",
            f"CREATE USER root@'127.0.0.1' IDENTIFIED BY '{place.password}';\n"
            "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
            "CREATE DATABASE queue_core;\n",
        )
        init = [str(find_program("mariadb-install-db")), "--no-defaults", data]
        init += ["--auth-root-authentication-method=socket", "--skip-test-db"]
        command = [str(program), "--no-defaults", data, f"--init-file={accounts}"]
        command += [f"--port={place.ports[0]}", "--bind-address=127.0.0.1"]
        command += [f"--socket={place.data / 'socket'}", "--skip-name-resolve"]
        command += ["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=64M"]
        command += ["--max-connections=200"]
        return Recipe(
            [Process(command, environment)],
            before=[Process([*init, "--skip-name-resolve"], environment)],
        )

    def url(self, port: int, password: str) -> str:
        """See `Service.url`."""
        return f"mysql://root:{password}@127.0.0.1:{port}/queue_core"

"""RabbitMQ 3.10 and later. A namespace is a virtual host."""

import json
import logging
import os
import urllib.request
import uuid
from pathlib import Path

import pika
from keeper import Process

from servers.private import find_program, owned_file, run_quietly, search_path, why_not
from servers.service import Place, Recipe, Server, ServiceError

# Debian's commands on the usual PATH insist on the system's user; these do not.
HIDDEN = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin")
MANAGEMENT = "http://127.0.0.1:15672/api"
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


class RabbitMQ:
    """See `Service`. A private node has no plugin."""

    name = "rabbitmq"
    title = "RabbitMQ"
    variable = "QUEUE_CORE_TEST_AMQP_URL"
    standard = "amqp://guest:guest@127.0.0.1:5672/"
    packages: tuple[str, ...] = ("rabbitmq-server",)
    user = "rabbitmq"
    ports = 3  # for clients, for other nodes, for the name daemon

    def check(self, url: str) -> None:
        """See `Service.check`: handshake, login, virtual host."""
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs what it raises
        parameters = pika.URLParameters(url)
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = 5.0
        pika.BlockingConnection(parameters).close()

    def add_namespace(self, server: Server, name: str) -> str:
        """See `Service.add_namespace`; by rabbitmqctl, else by the management API.

        The system's own rabbitmqctl comes first: on Debian it becomes the user that may talk to
        the node.
        """
        url = f"{server.url.rpartition('/')[0]}/{name}"
        usual = {"PATH": f"/usr/sbin:{search_path()}", "HOME": os.environ.get("HOME", "/")}
        ways = [server.control_environment] if server.control_environment else [usual, {}]
        for environment in ways:
            server.control_environment = environment
            try:
                self._change(server, "add", name)
            except ServiceError as error:
                cause = error.cause
                continue
            if (problem := why_not(self, url)) is None:
                return url
            self._change(server, "delete", name)  # it was another node than the one on the port
            cause = problem
        raise ServiceError(cause, "enable the management API")

    def drop_namespace(self, server: Server) -> None:
        """See `Service.drop_namespace`."""
        self._change(server, "delete", server.namespace)

    def program(self) -> Path | None:
        """See `Service.program`: the start script; Erlang's name daemon belongs to it."""
        return find_program("rabbitmq-server", *HIDDEN) if _epmd() else None

    def recipe(self, program: Path, place: Place) -> Recipe:
        """See `Service.recipe`: own node name, cookie, home, data, logs, ports; no plugin."""
        data, (port, distribution, names) = place.data, place.ports
        owned_file(place, "home/.erlang.cookie", uuid.uuid4().hex, 0o400)
        settings = (f"listeners.tcp.1 = 127.0.0.1:{port}", "disk_free_limit.absolute = 50MB")
        # -noinput: the start script runs the node in the foreground only if it may read; there is
        # nothing to read. +sbwt: schedulers that spin while idle would take both cores from the
        # tests.
        arguments = "-noinput +sbwt none +sbwtdcpu none +sbwtdio none"
        arguments += " -kernel inet_dist_use_interface {127,0,0,1}"
        environment = {  # all of it: nothing of ours is in it
            "PATH": search_path(*HIDDEN),
            "HOME": str(data / "home"),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_NODENAME": f"queue-core-{uuid.uuid4().hex[:8]}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONF_ENV_FILE": str(owned_file(place, "environment", "")),
            "RABBITMQ_CONFIG_FILE": str(
                owned_file(place, "rabbitmq.conf", "\n".join((*settings, "log.console = false\n")))
            ),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(data / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(owned_file(place, "plugins", "[].\n")),
            "RABBITMQ_MNESIA_BASE": str(data / "data"),
            "RABBITMQ_SCHEMA_DIR": str(data / "data" / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(data / "data" / "config"),
            "RABBITMQ_LOG_BASE": str(data / "log"),
            "RABBITMQ_PID_FILE": str(data / "node.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments,
        }
        daemon = [str(_epmd()), "-port", str(names), "-address", "127.0.0.1"]
        return Recipe([Process(daemon, environment), Process([str(program)], environment)])

    def url(self, port: int, password: str) -> str:
        """See `Service.url`: its own default account, which is for the loopback interface only."""
        return f"amqp://guest:guest@127.0.0.1:{port}/"

    def _change(self, server: Server, action: str, vhost: str) -> None:
        """Add or delete a virtual host. Raises `ServiceError`."""
        change = _by_command if server.control_environment else _by_management
        change(server, action, vhost)


def _by_command(server: Server, action: str, vhost: str) -> None:
    command = [*server.control, "rabbitmqctl", "-q"]
    run_quietly([*command, f"{action}_vhost", vhost], server.control_environment)
    if action == "add":
        permit = [*command, "set_permissions", "-p", vhost, "guest", *EVERYTHING.values()]
        run_quietly(permit, server.control_environment)


def _by_management(_server: Server, action: str, vhost: str) -> None:
    requests: list[tuple[str, str, dict[str, str]]] = [
        ("PUT" if action == "add" else "DELETE", f"/vhosts/{vhost}", {})
    ]
    if action == "add":
        requests.append(("PUT", f"/permissions/{vhost}/guest", EVERYTHING))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for method, path, body in requests:
        request = urllib.request.Request(
            MANAGEMENT + path, json.dumps(body).encode(), method=method
        )
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")  # guest:guest
        try:
            opener.open(request, timeout=5).close()
        except OSError as error:
            raise ServiceError(f"the management API failed: {error}", "enable it") from error


def _epmd() -> Path | None:
    inside = sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
    return find_program("epmd") or (inside[-1] if inside else None)

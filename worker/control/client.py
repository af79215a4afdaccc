"""Giving workers commands, from a program: ``app.control``.

The names, and what the methods take, are celery's. Answers are `queue_core.mailbox.Answers`: a
mapping of node to value, which says of each node that is not in it why.

Workers are nodes of the namespace ``queue-core``, where a call ends with the last answer. On
RabbitMQ they are nodes of celery's namespace too; with the setting ``control_exchange="celery"``
workers of both kinds are reached, and a call waits for the whole timeout, since celery's workers do
not say who is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from queue_core import ConfigError, Connection, PerProcess, QueueNotFound
from queue_core.mailbox import Answers, Mailbox, SigningKey
from queue_core.worker.control.signal_names import signal_number
from queue_core.worker.settings import Settings

NAMESPACE: Final = "queue-core"
CELERY: Final = "celery"

Ids = str | Sequence[str]


class Control:
    """Tells workers what to do. Thread-safe.

    Every method blocks for a round trip, and with ``reply`` until all answered, at most
    ``timeout`` seconds. Without ``reply`` nothing is known of who heard it, and an empty answer is
    returned.
    """

    def __init__(
        self,
        connection: Callable[[], Connection],
        *,
        namespace: str = NAMESPACE,
        key: SigningKey | None = None,
        queues: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Connect nothing yet.

        Args:
            connection: returns this process's.
            namespace: whose workers.
            key: signs the commands, for workers that obey nobody else.
            queues: returns the names of those that workers take from if nothing else is said.
        """
        self._connection = connection
        self._namespace = namespace
        self._key = key
        self._queues = queues
        self._box = PerProcess(self._open_box)

    @property
    def mailbox(self) -> Mailbox:
        """This process's mailbox."""
        return self._box.get()

    def close(self) -> None:
        """Let go of this process's mailbox; may be called twice."""
        box = self._box.take()
        if box is not None:
            box.close()

    def _open_box(self) -> Mailbox:
        return Mailbox(self._namespace, self._connection(), key=self._key)

    def purge(self, *queues: str) -> int:
        """Delete the messages that wait in these queues, or in all of the app's; return how many.

        What workers have taken is not touched, and a queue that does not exist is empty. Blocks for
        a round trip for each.
        """
        connection, deleted = self._connection(), 0
        for queue in queues or self._queues():
            with contextlib.suppress(QueueNotFound):
                deleted += connection.purge(queue)
        return deleted

    def discard_all(self) -> int:
        """As `purge`, by celery's other word for it."""
        return self.purge()

    # --- any command ------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        /,
        *,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
        **arguments: Any,
    ) -> Answers:
        """Ask workers with any command, also one of your own, and wait for their answers."""
        return self.broadcast(
            method, arguments, destination=destination, reply=True, timeout=timeout
        )

    def broadcast(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        destination: Sequence[str] | None = None,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[[str, Any], object] | None = None,
        pattern: str | None = None,
        matcher: str = "glob",
    ) -> Answers:
        """Give a command to all workers, or those in ``destination``, or whose names match.

        Args:
            command: its name.
            arguments: by name.
            destination: names of nodes.
            reply: wait for the answers.
            timeout: seconds in all.
            limit: return after so many answers.
            callback: called with node and value as each answer comes.
            pattern, matcher: ``glob`` or ``pcre``, and what names must match.
        """
        box, given = self.mailbox, arguments or {}
        where: dict[str, Any] = {}
        if pattern is not None:
            where["match" if matcher == "glob" else "regex"] = pattern
        if destination is not None:
            names = [destination] if isinstance(destination, str) else list(destination)
            if reply:
                return box.call(names, command, given, timeout, callback)
            box.cast(names, command, given)
        elif reply:
            return box.multi_call(command, given, timeout, limit, callback, **where)
        else:
            box.abcast(command, given, **where)
        return Answers()

    def inspect(
        self,
        destination: Sequence[str] | None = None,
        timeout: float = 1.0,
        *,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str = "glob",
    ) -> Inspect:
        """Return what asks workers; the arguments are those of `broadcast`."""
        return Inspect(
            self,
            {
                "destination": destination,
                "timeout": timeout,
                "limit": limit,
                "pattern": pattern,
                "matcher": matcher,
                "reply": True,
            },
        )

    # --- what every worker can --------------------------------------------------------------------

    def ping(self, destination: Sequence[str] | None = None, timeout: float = 1.0) -> Answers:
        """See who is there."""
        return self.call("ping", destination=destination, timeout=timeout)

    def revoke(
        self, task_id: Ids, *, terminate: bool = False, signal: str = "SIGTERM", **how: Any
    ) -> Answers:
        """Do not start these tasks anywhere; with ``terminate`` end those that run, by ``signal``.

        Workers that start within three hours learn of it too, where the broker keeps that. Raises
        UsageError if there is no such signal.
        """
        signal_number(signal)
        given = {"task_id": _ids(task_id), "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", given, **how)

    def terminate(self, task_id: Ids, signal: str = "SIGTERM", **how: Any) -> Answers:
        """End these tasks where they run, and start them nowhere. Raises as `revoke`."""
        signal_number(signal)
        return self.broadcast("terminate", {"task_id": _ids(task_id), "signal": signal}, **how)

    def rate_limit(self, task_name: str, rate_limit: str | float | None, **how: Any) -> Answers:
        """Start a task at most so often on each worker: ``10/s``, ``100/m``, ``2/h``, or 0."""
        given = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", given, **how)

    def time_limit(
        self, task_name: str, soft: float | None = None, hard: float | None = None, **how: Any
    ) -> Answers:
        """Limit the seconds that a task may run."""
        given = {"task_name": task_name, "soft": soft, "hard": hard}
        return self.broadcast("time_limit", given, **how)

    def pool_grow(self, n: int = 1, **how: Any) -> Answers:
        """Run ``n`` more tasks at once."""
        return self.broadcast("pool_grow", {"n": n}, **how)

    def pool_shrink(self, n: int = 1, **how: Any) -> Answers:
        """Run ``n`` fewer tasks at once."""
        return self.broadcast("pool_shrink", {"n": n}, **how)

    def pool_restart(self, **how: Any) -> Answers:
        """Replace the child processes, so that they import the app anew."""
        return self.broadcast("pool_restart", {}, **how)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **how: Any,
    ) -> Answers:
        """Take from one more queue."""
        given = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
        }
        return self.broadcast("add_consumer", given, **how)

    def cancel_consumer(self, queue: str, **how: Any) -> Answers:
        """Take nothing more from a queue."""
        return self.broadcast("cancel_consumer", {"queue": queue}, **how)

    def pause(self, queue: str = "", **how: Any) -> Answers:
        """Take nothing from a queue, or from any, until `resume`."""
        return self.broadcast("pause", {"queue": queue}, **how)

    def resume(self, queue: str = "", **how: Any) -> Answers:
        """Take again."""
        return self.broadcast("resume", {"queue": queue}, **how)

    def log_level(self, level: str, **how: Any) -> Answers:
        """Log from this level on."""
        return self.broadcast("log_level", {"level": level}, **how)

    def shutdown(self, **how: Any) -> Answers:
        """Stop, as on SIGTERM."""
        return self.broadcast("shutdown", {}, **how)


def control_of(
    connection: Callable[[], Connection], settings: Settings, queues: Callable[[], Iterable[str]]
) -> Control:
    """Return the control of an app with these settings and queues.

    Raises:
        ConfigError: as `key_of`.
    """
    key = key_of(settings)
    return Control(connection, namespace=settings.control_exchange, key=key, queues=queues)


def key_of(settings: Settings) -> SigningKey | None:
    """Return the key that signs what this process tells workers, if the settings name one.

    Raises:
        ConfigError: the key lacks its name or its file, or the file cannot be used.
    """
    name, file = settings.control_key_name, settings.control_key_file
    if not (name or file):
        return None
    if not (name and file):
        raise ConfigError("control_key_name and control_key_file belong together")
    return SigningKey.from_file(name, file)


class Inspect:
    """Asks workers; each method returns node -> what it says. Made by `Control.inspect`."""

    def __init__(self, control: Control, how: dict[str, Any]) -> None:
        """``how`` are arguments of `Control.broadcast`."""
        self._control = control
        self._how = how

    def ask(self, command: str, /, **arguments: Any) -> Answers:
        """Ask with any command, also one of your own."""
        return self._control.broadcast(command, arguments, **self._how)

    def ping(self) -> Answers:
        """See who is there."""
        return self.ask("ping")

    def clock(self) -> Answers:
        """Ask for the logical time."""
        return self.ask("clock")

    def stats(self) -> Answers:
        """Ask what each has done and is made of."""
        return self.ask("stats")

    def active(self) -> Answers:
        """Ask for the tasks that run."""
        return self.ask("active")

    def reserved(self) -> Answers:
        """Ask for the tasks that are there and do not run yet."""
        return self.ask("reserved")

    def scheduled(self) -> Answers:
        """Ask for the tasks that wait there for their time."""
        return self.ask("scheduled")

    def revoked(self) -> Answers:
        """Ask for the ids of tasks that will not run."""
        return self.ask("revoked")

    def registered(self, *taskinfoitems: str) -> Answers:
        """Ask for the tasks that each knows."""
        return self.ask("registered", taskinfoitems=list(taskinfoitems))

    def active_queues(self) -> Answers:
        """Ask for the queues that each takes from."""
        return self.ask("active_queues")

    def query_task(self, *ids: str) -> Answers:
        """Ask what each knows of these tasks."""
        return self.ask("query_task", ids=list(ids))

    def report(self) -> Answers:
        """Ask for versions and settings."""
        return self.ask("report")

    def conf(self, *, with_defaults: bool = False) -> Answers:
        """Ask for the settings."""
        return self.ask("conf", with_defaults=with_defaults)

    def memsample(self) -> Answers:
        """Ask how much memory each takes."""
        return self.ask("memsample")


def _ids(task_id: Ids) -> list[str]:
    return [task_id] if isinstance(task_id, str) else list(task_id)

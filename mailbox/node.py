"""A node: takes commands out of its queue, runs their handlers, and answers.

One thread takes, checks and hands over; handlers run on others (`queue_core.mailbox.runner`), so
that a slow one never stands in the way of a ``ping``. What a node promises:

- A ticket is run at most once; when it comes again, the same answer is sent again.
- A command that comes too late is not run, and the caller hears so.
- Whatever a handler raises is an answer. ``SystemExit`` is one too: the node answers, then leaves.
- What cannot be read, is for others, or is not allowed is counted (`Node.counts`), and the node
  goes on. Whatever may change something is written to the logger ``queue_core.mailbox.audit``.
- Commands are taken at a bounded rate, so that a flood of them leaves the program beside it alone.
- Of two nodes with one name the newer stays; the older stops listening and says so.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Self, TypeVar

import msgspec

from queue_core import (
    AccessRefused,
    Backoff,
    Binding,
    Clock,
    Closed,
    Connection,
    Consumer,
    Deadline,
    Exchange,
    Message,
    MessageError,
    Queue,
    QueueCoreError,
    TopologyMismatch,
    UsageError,
)
from queue_core.mailbox.clock import LamportClock
from queue_core.mailbox.directory import Directory, Labels, PeerDirectory
from queue_core.mailbox.journal import entry_of
from queue_core.mailbox.panel import BadArguments, Entry, Handler, Kind, Meta, Panel
from queue_core.mailbox.replies import private_queue
from queue_core.mailbox.runner import Runner
from queue_core.mailbox.signing import Guard
from queue_core.mailbox.wire import Command, Malformed, Reply, node_queue, read_command

logger = logging.getLogger(__name__)
audit = logging.getLogger("queue_core.mailbox.audit")

H = TypeVar("H", bound=Handler)

PREFETCH: Final = 50
RATE: Final = 200.0
"""Commands per second that a node takes in the long run."""
BURST: Final = 400.0
"""Commands that it takes at once after a pause."""
MAX_REMEMBERED: Final = 1000
"""Tickets whose answers are kept for the case that they come again."""
COMMAND_TTL: Final = 300.0
"""Seconds that a command without a ttl of its own waits for a node at most."""
_POLL: Final = 5.0
_REJOIN: Final = 30.0
_RETRY: Final = 0.05


class NameTaken(UsageError):
    """Another node of this name is there and does not leave."""


class Wiring(msgspec.Struct, frozen=True):
    """What the nodes of a mailbox share.

    Attributes:
        connection: the mailbox's.
        namespace: names that belong together.
        exchange: where commands are published to.
        peers: where nodes talk among themselves, if they must.
        reply_exchange: where answers go.
        clock, time: logical and physical.
        directory: who there is, and what to remember.
        accept: the serializers that commands may come in.
        cast: sends a command to one node: name, method, arguments.
    """

    connection: Connection
    namespace: str
    exchange: Exchange
    peers: Exchange | None
    reply_exchange: Exchange
    clock: LamportClock
    time: Clock
    directory: Directory
    accept: tuple[str, ...]
    cast: Callable[[str, str, Mapping[str, Any]], None]


class Job(msgspec.Struct, frozen=True):
    """A command that passed every check, and what runs it."""

    command: Command
    entry: Entry
    arguments: dict[str, Any]
    received: float


class Node:
    """One name in a mailbox. Made by `Mailbox.node`; a context manager that starts and stops."""

    def __init__(
        self,
        name: str,
        wiring: Wiring,
        guard: Guard,
        *,
        state: Any = None,
        panel: Panel | None = None,
        labels: Labels = {},  # noqa: B006 - never changed
        on_duplicate: Literal["takeover", "refuse"] = "takeover",
    ) -> None:
        """Declare nothing yet. See `Mailbox.node`."""
        self.name = name
        self.state = state
        self.labels = dict(labels)
        self.panel = Panel(*([panel] if panel is not None else []))
        self.counts: Counter[str] = Counter()
        """How many commands were ``handled``, ``failed``, ``expired``, ``refused``, ``malformed``,
        ``unknown``, ``repeated``, or for ``others``."""
        self._wiring = wiring
        self._guard = guard
        self._on_duplicate = on_duplicate
        self._own = _own_commands(self)
        self._life = os.urandom(8).hex()
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, list[Reply]] = OrderedDict()
        self._producer = wiring.connection.producer()
        self._runner = Runner(f"{name} handlers")
        self._pace = _Pace(wiring.time)
        self._stopping = threading.Event()
        self._lost = False
        self._queue: Queue | None = None
        self._consumer: Consumer | None = None
        self._thread: threading.Thread | None = None

    # --- commands ---------------------------------------------------------------------------------

    def handler(
        self,
        function: H | None = None,
        /,
        *,
        kind: Kind = "inspect",
        **options: Any,
    ) -> Any:
        """Register a handler on this node alone: ``@node.handler`` or ``@node.handler(...)``.

        Options as in `Panel.register`.
        """

        def register(handler: H) -> H:
            self.panel.register(handler, kind=kind, **options)
            return handler

        return register if function is None else register(function)

    def dispatch(self, method: str, arguments: Mapping[str, Any] = {}) -> Any:  # noqa: B006
        """Check the arguments and run a handler here and now; return what it returns.

        Raises:
            KeyError: there is no such command.
            BadArguments: it cannot be called like that.
        """
        entry = self._find(method)
        return entry.handler(self.state, **entry.bind(arguments))

    def _find(self, method: str) -> Entry:
        mine = method in self._own and (method.startswith("qc.") or method not in self.panel)
        return (self._own if mine else self.panel).find(method)

    # --- coming and going -------------------------------------------------------------------------

    def start(self, timeout: float = 60.0) -> Self:
        """Come: declare the queue, learn the journal, and serve on a thread of its own.

        Blocks for some round trips; at most ``timeout`` seconds while another node has the name
        (an older one that was killed has it until its lease ends).

        Raises:
            NameTaken: another node has the name, and does not leave, or should not.
            ConnectionLost, AccessRefused: the broker cannot be used.
        """
        if self._thread is not None:
            return self
        self._declare(Deadline.after(timeout, self._wiring.time))
        if self._guard.open:
            logger.info("node %s obeys everybody who can publish to its broker", self.name)
        assert self._queue is not None, "declared a moment ago"
        self._consumer = self._wiring.connection.consumer(
            self._queue, prefetch=PREFETCH, accept=self._wiring.accept, decode=False
        )
        self._consumer.start()
        self._learn()
        self._wiring.directory.join(self.name, self.labels)
        self._thread = threading.Thread(target=self._serve, name=f"node {self.name}", daemon=True)
        self._thread.start()
        return self

    def _declare(self, deadline: Deadline) -> None:
        wiring = self._wiring
        wiring.connection.declare(wiring.reply_exchange)
        queue = private_queue(
            wiring.connection,
            node_queue(wiring.namespace, self.name),
            exchange=wiring.exchange,
            ttl=COMMAND_TTL,
        )
        if wiring.peers is not None:
            wiring.connection.declare(wiring.peers)
            queue = msgspec.structs.replace(
                queue, bindings=(Binding(wiring.peers.name, queue.name),)
            )
        asked = False
        while True:
            try:
                self._queue = wiring.connection.declare(queue)
                return
            except (AccessRefused, TopologyMismatch) as error:
                if self._on_duplicate == "refuse" or deadline.expired:
                    raise NameTaken(
                        f"another node is called {self.name!r} in the namespace "
                        f"{wiring.namespace!r}; give this one another name, or stop the other"
                    ) from error
                if not asked:
                    logger.warning("another node is called %s; asking it to leave", self.name)
                    wiring.cast(self.name, "qc.leave", {"life": self._life})
                    asked = True
                wiring.time.sleep(deadline.bound(_RETRY))

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the node has left, at most ``timeout`` seconds; return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def stop(self, timeout: float = 10.0) -> None:
        """Leave: take nothing more, let running handlers end, delete the queue.

        May be called twice, and from a handler. Blocks at most about ``timeout`` seconds.
        """
        self._leave_soon()
        if threading.current_thread() is self._thread or self._runner.is_own_thread():
            return
        self._runner.stop(timeout)
        self.wait(timeout)

    def _leave_soon(self) -> None:
        self._stopping.set()
        if self._consumer is not None:
            self._consumer.stop()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self.stop()

    # --- serving, on the node's thread ------------------------------------------------------------

    def _serve(self) -> None:
        assert self._consumer is not None, "started"
        backoff, failures = Backoff(), 0
        rejoin = time.monotonic() + _REJOIN
        while not self._stopping.is_set():
            try:
                message = self._consumer.receive(timeout=_POLL)
                if message is not None:
                    self._take(message)
                if time.monotonic() >= rejoin:
                    self._wiring.directory.join(self.name, self.labels, again=True)
                    rejoin = time.monotonic() + _REJOIN
                failures = 0
            except Closed:
                break
            except (AccessRefused, TopologyMismatch) as error:
                # We were away for longer than our lease, and somebody else has the name now.
                logger.warning("node %s leaves: its queue is another's now: %s", self.name, error)
                self._lost = True
                break
            except QueueCoreError as error:
                logger.warning("node %s cannot take commands: %s", self.name, error)
                self._stopping.wait(backoff.delay(failures))
                failures += 1
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        wiring, queue = self._wiring, self._queue
        self._stopping.set()
        try:
            if not self._lost:
                wiring.directory.leave(self.name)
            if self._consumer is not None:
                self._consumer.close()
            if queue is not None and not self._lost:
                wiring.connection.delete(queue)
        except QueueCoreError as error:
            logger.debug("node %s leaves its queue to its connection's end: %s", self.name, error)

    def _take(self, message: Message) -> None:
        """Check one command and hand it over, or say why not."""
        message.ack()
        received = time.monotonic()
        if not message.body:
            return  # somebody looked whether this node is there
        self._stopping.wait(self._pace.pause())
        try:
            command = read_command(message)
            if command.reply_to is not None and command.reply_to.exchange not in (
                "",
                self._wiring.reply_exchange.name,
            ):
                raise Malformed(f"its answers should go to {command.reply_to.exchange!r}")
        except Malformed as reason:
            self.counts["malformed"] += 1
            logger.warning("node %s got something that is no command: %s", self.name, reason)
            return
        self._wiring.clock.adjust(command.clock)
        if not command.address.includes(self.name, self.labels):
            self.counts["others"] += 1
        elif not self._repeated(command):
            self._judge(command, received)

    def _repeated(self, command: Command) -> bool:
        """Answer a ticket that came before as it was answered then."""
        if not command.ticket:
            return False
        with self._lock:
            before = self._answers.get(command.ticket)
            if before is None:
                self._answers[command.ticket] = []
                while len(self._answers) > MAX_REMEMBERED:
                    self._answers.popitem(last=False)
                return False
        self.counts["repeated"] += 1
        for reply in before:
            self._send(command, reply)
        return True

    def _judge(self, command: Command, received: float) -> None:
        if command.ttl is None and command.expires and command.expires < self._wiring.time.time():
            self._refuse(command, "expired", "it came too late")
            return
        try:
            entry = self._find(command.method)
        except KeyError as error:
            self._refuse(command, "error", error.args[0], "KeyError", count="unknown")
            return
        if entry.meta.kind != "inspect" and (objection := self._guard.objection(command)):
            audit.warning(
                "%s refused %s %s: %s", self.name, command.method, command.ticket, objection
            )
            self._refuse(command, "refused", objection)
            return
        try:
            arguments = entry.bind(command.arguments)
        except BadArguments as error:
            self._refuse(command, "error", str(error), "BadArguments", count="failed")
            return
        if entry.meta.kind != "inspect":
            by = f"by {command.key}" if command.key else "unsigned"
            audit.info("%s accepted %s %s %s", self.name, command.method, command.ticket, by)
        job = Job(command, entry, arguments, received)
        name = entry.meta.name
        if not self._runner.submit(name, entry.meta.concurrency, lambda: self._run(job)):
            self._refuse(command, "error", f"too many commands wait here for {name}", "Busy")

    def _refuse(
        self,
        command: Command,
        kind: Literal["expired", "refused", "error"],
        text: str,
        error: str = "",
        count: str = "",
    ) -> None:
        self.counts[count or kind] += 1
        self._reply(command, kind=kind, value=text, error=error)

    # --- running, on the handlers' threads --------------------------------------------------------

    def _run(self, job: Job) -> None:
        command, entry = job.command, job.entry
        if command.ttl is not None and time.monotonic() - job.received > command.ttl:
            self._refuse(command, "expired", "it waited too long for its turn")
            return
        try:
            value = entry.handler(self.state, **job.arguments)
            if inspect.isgenerator(value):
                index = 0
                for index, item in enumerate(value, 1):
                    self._reply(command, kind="item", value=item, index=index - 1)
                self._reply(command, kind="end", index=index)
            else:
                self._reply(command, value=value)
            self.counts["handled"] += 1
        except SystemExit as leaving:
            self.counts["handled"] += 1
            self._reply(command, value=leaving.code)
            self._leave_soon()
        except BaseException as error:  # noqa: BLE001 - a thread of its own; it is an answer
            self.counts["failed"] += 1
            logger.info("%s failed on node %s", command.method, self.name, exc_info=True)
            self._reply(command, kind="error", value=str(error), error=type(error).__name__)
        else:
            self._remember(job)

    def _remember(self, job: Job) -> None:
        seconds = job.entry.meta.journal
        if seconds <= 0:
            return
        until = self._wiring.time.time() + seconds
        try:
            self._wiring.directory.record(entry_of(job.command, until))
        except QueueCoreError as error:
            logger.warning("%s is not kept for later nodes: %s", job.command.method, error)

    def _reply(
        self,
        command: Command,
        *,
        value: Any = None,
        kind: Literal["value", "item", "end", "error", "expired", "refused"] = "value",
        error: str = "",
        index: int = 0,
    ) -> None:
        if command.reply_to is None:
            return
        directory = self._wiring.directory
        peers = None
        if command.peers and isinstance(directory, PeerDirectory):
            peers = directory.peers(command.address)
        reply = Reply(self.name, command.ticket, kind, value, error, index, peers=peers)
        try:
            self._send(command, reply)
        except MessageError as refused:
            reply = Reply(
                self.name,
                command.ticket,
                "error",
                f"the answer cannot be sent: {refused}",
                type(refused).__name__,
                peers=peers,
            )
            self._send(command, reply)
        with self._lock:
            if command.ticket in self._answers and len(self._answers[command.ticket]) < 100:
                self._answers[command.ticket].append(reply)

    def _send(self, command: Command, reply: Reply) -> None:
        """Send an answer; that the caller is gone, or the broker away, is no error here."""
        where = command.reply_to
        if where is None:
            return
        stamped = msgspec.structs.replace(reply, clock=self._wiring.clock.forward())
        try:
            self._producer.publish(
                stamped.body(),
                where.routing_key,
                exchange=where.exchange,
                headers=stamped.headers(),
                serializer="json",
                mandatory=False,
                durable=False,
            )
        except MessageError:
            raise
        except QueueCoreError as error:
            logger.warning("the answer to %s could not be sent: %s", command.method, error)

    # --- the journal ------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Do what a node that was here before us would remember."""
        for entry in self._wiring.directory.journal():
            self._apply(entry.command(), max(0.0, entry.until - self._wiring.time.time()))

    def _apply(self, command: Command, seconds: float) -> None:
        with self._lock:
            if command.ticket in self._answers:
                return
            self._answers[command.ticket] = []
        if not command.address.includes(self.name, self.labels) or command.method not in self.panel:
            return
        entry = self.panel.find(command.method)
        if entry.meta.journal <= 0 or seconds > entry.meta.journal:
            return
        if (objection := self._guard.doubt(command, entry.meta.journal)) is not None:
            audit.warning("%s did not learn %s: %s", self.name, command.method, objection)
            return
        try:
            entry.handler(self.state, **entry.bind(command.arguments))
        except Exception:
            logger.exception("%s could not be learned from the journal", command.method)
        else:
            audit.info("%s learned %s %s", self.name, command.method, command.ticket)
            self.counts["learned"] += 1

    # --- between nodes ----------------------------------------------------------------------------

    def _greeted(self, name: str, labels: dict[str, str], again: bool) -> None:  # noqa: FBT001
        """A node came: take note, and tell it what is known here."""
        directory = self._wiring.directory
        if name == self.name or not isinstance(directory, PeerDirectory):
            return
        if not again:
            self._wiring.cast(name, "qc.told", {"told": directory.tell()})
        directory.note(name, labels)

    def _told(self, told: dict[str, Any]) -> None:
        directory = self._wiring.directory
        if isinstance(directory, PeerDirectory):
            directory.learn(told)
            self._learn()

    def _told_gone(self, names: list[str]) -> None:
        directory = self._wiring.directory
        if isinstance(directory, PeerDirectory):
            directory.drop(name for name in names if name != self.name)

    def _asked_to_leave(self, life: str) -> None:
        if life == self._life:
            return
        logger.warning("node %s leaves: a newer one took its name", self.name)
        raise SystemExit("left")


class _Pace:
    """A bucket of tokens: `RATE` a second, at most `BURST` of them. One thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = BURST
        self._at = clock.monotonic()

    def pause(self) -> float:
        """Use a token; return the seconds to wait for it."""
        now = self._clock.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._at) * RATE) - 1
        self._at = now
        return max(0.0, -self._tokens / RATE)


def _described(meta: Meta) -> dict[str, Any]:
    return {
        "name": meta.name,
        "alias": meta.alias,
        "kind": meta.kind,
        "signature": meta.signature,
        "help": meta.help,
        "arguments": [argument.name for argument in meta.arguments],
        "variadic": meta.variadic,
        "default_timeout": meta.default_timeout,
    }


def _own_commands(node: Node) -> Panel:
    """What every node can do, and what nodes say among themselves."""
    panel = Panel()

    def hello(state: object, name: str, labels: dict[str, str], again: bool = False) -> None:
        node._greeted(name, labels, again)  # noqa: SLF001 - the panel is the node's

    def told(state: object, told: dict[str, Any]) -> None:
        node._told(told)  # noqa: SLF001

    def bye(state: object, names: list[str]) -> None:
        node._told_gone(names)  # noqa: SLF001

    def ping(state: object) -> dict[str, str]:
        """Answer, to show that the node lives."""
        return {"ok": "pong"}

    def clock(state: object) -> dict[str, int]:
        """The node's logical time."""
        return {"clock": node._wiring.clock.value}  # noqa: SLF001

    def commands(state: object) -> list[dict[str, Any]]:
        """The commands of this node, and how they are called."""
        return [_described(entry.meta) for entry in (*node.panel, *panel) if entry.meta.visible]

    def who(state: object) -> dict[str, str]:
        return node.labels

    def leave(state: object, life: str) -> None:
        node._asked_to_leave(life)  # noqa: SLF001

    for handler in (ping, clock, commands):
        panel.register(handler, concurrency=4)
    panel.register(hello, name="qc.hello", visible=False, concurrency=4)
    panel.register(told, name="qc.told", visible=False)
    panel.register(bye, name="qc.bye", visible=False)
    panel.register(who, name="qc.who", visible=False)
    panel.register(leave, name="qc.leave", kind="admin", visible=False)
    return panel

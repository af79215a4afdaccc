"""What a node does with a command: read it, judge it, run it, answer it.

`Reception.take` is called by the node's thread for each message. It turns away what cannot be read,
is for others, came too late or is not allowed, and hands the rest to the threads of the runner. So
no handler runs where the next command is waited for, but those that say that they wait for nothing
(``concurrency=0``), such as ``ping``: they are answered even when every thread is busy.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Literal

import msgspec

from queue_core import Message, QueueCoreError, UsageError
from queue_core.mailbox.answering import Answering
from queue_core.mailbox.builtin import Profile, builtin_commands
from queue_core.mailbox.journal import MAX_ENTRIES, entry_of
from queue_core.mailbox.journal import Entry as JournalEntry
from queue_core.mailbox.panel import BadArguments, Entry
from queue_core.mailbox.runner import Runner
from queue_core.mailbox.signing import SKEW, Guard
from queue_core.mailbox.streaming import Streams
from queue_core.mailbox.wire import Command, Malformed, read_command
from queue_core.mailbox.wiring import Wiring

logger = logging.getLogger(__name__)
audit = logging.getLogger("queue_core.mailbox.audit")


class Job(msgspec.Struct, frozen=True):
    """A command that passed every check, and what runs it."""

    command: Command
    entry: Entry
    arguments: dict[str, Any]
    received: float


class Reception:
    """The commands of one node, from the message to the answer."""

    def __init__(
        self,
        node: Profile,
        wiring: Wiring,
        guard: Guard,
        runner: Runner,
        counts: Counter[str],
        leave: Callable[[], None],
    ) -> None:
        """Take nothing yet. ``leave`` is called when a handler wants the node to end."""
        self._node = node
        self._wiring = wiring
        self._guard = guard
        self._runner = runner
        self._counts = counts
        self._counting = threading.Lock()
        self._leave = leave
        self._answers = Answering(node.name, wiring)
        self._streams = Streams(self._answers)
        self._seen: dict[str, None] = {}  # tickets of the journal's entries that were done here
        self._own = builtin_commands(node, wiring, self._believes, self.learn, self._streams.leave)

    def find(self, method: str) -> Entry:
        """Return what runs a command. Raises KeyError."""
        panel, own = self._node.panel, self._own
        mine = method in own and (method.startswith("qc.") or method not in panel)
        return (own if mine else panel).find(method)

    # --- taking, on the node's thread -------------------------------------------------------------

    def take(self, message: Message, received: float) -> None:
        """Check one command and hand it over, or say why not.

        ``received`` is when it came, on the monotonic clock. Blocks for the round trips of an
        answer at most. Never raises: whatever a stranger sent, the next one is taken.
        """
        try:
            self._take(message, received)
        except Exception:
            self._count("failed")
            logger.exception("node %s cannot deal with a command", self._node.name)

    def _take(self, message: Message, received: float) -> None:
        try:
            command = self._read(message)
        except Malformed as reason:
            self._count("malformed")
            logger.warning("node %s got something that is no command: %s", self._node.name, reason)
            return
        self._wiring.clock.adjust(command.clock)
        if not command.address.includes(self._node.name, self._node.labels):
            self._count("others")
        elif self._answers.repeat(command):
            self._count("repeated")
        elif (job := self._judge(command, received)) is not None:
            self._hand_over(job)

    def _read(self, message: Message) -> Command:
        command = read_command(message)
        where = command.reply_to
        if where is not None and not where.belongs_to(self._wiring.namespace):
            raise Malformed(
                f"its answers should go to {where.routing_key!r} through {where.exchange!r}"
            )
        return command

    def _judge(self, command: Command, received: float) -> Job | None:
        """Return what is to be run, or say why nothing is."""
        name = self._node.name
        if command.ttl is None and command.expires and command.expires < self._wiring.time.time():
            self._refuse(command, "expired", "it came too late")
            return None
        try:
            entry = self.find(command.method)
        except KeyError as error:
            self._refuse(command, "error", error.args[0], "KeyError", count="unknown")
            return None
        if entry.meta.kind != "inspect" and (objection := self._guard.objection(command)):
            audit.warning("%s refused %s %s: %s", name, command.method, command.ticket, objection)
            self._refuse(command, "refused", objection)
            return None
        try:
            arguments = entry.bind(command.arguments)
        except BadArguments as error:
            self._refuse(command, "error", str(error), "BadArguments", count="failed")
            return None
        if entry.meta.kind != "inspect":
            by = f"by {command.key}" if command.key else "unsigned"
            audit.info("%s accepted %s %s %s", name, command.method, command.ticket, by)
        return Job(command, entry, arguments, received)

    def _hand_over(self, job: Job) -> None:
        command, meta = job.command, job.entry.meta
        if not self._answers.begin(command):
            self._count("repeated")  # it was learned from the journal a moment ago
        elif not meta.concurrency:
            self._run(job)
        elif not self._runner.submit(meta.name, meta.concurrency, lambda: self._run(job)):
            self._answers.forget(command)
            self._refuse(command, "error", f"too many commands wait here for {meta.name}", "Busy")

    def _refuse(
        self,
        command: Command,
        kind: Literal["expired", "refused", "error"],
        text: str,
        error: str = "",
        count: str = "",
    ) -> None:
        self._count(count or kind)
        self._answers.reply(command, text, kind=kind, error=error)

    def _count(self, what: str) -> None:
        with self._counting:
            self._counts[what] += 1

    def stop(self) -> None:
        """End what handlers yield. Does not block."""
        self._streams.stop()

    # --- running, on the handlers' threads --------------------------------------------------------

    def _run(self, job: Job) -> None:
        command, entry = job.command, job.entry
        if command.ttl is not None and time.monotonic() - job.received > command.ttl:
            self._refuse(command, "expired", "it waited too long for its turn")
            return
        try:
            value = entry.handler(self._node.state, **job.arguments)
            if not inspect.isgenerator(value):
                self._record(job)  # before the answer: who has it may start a node at once
                self._answers.reply(command, value)
            elif self._send_items(job, value):
                self._record(job)
            else:
                self._count("left")
                return
            self._count("handled")
        except SystemExit as leaving:
            self._count("handled")
            self._answers.reply(command, leaving.code)
            self._leave()
        except BaseException as error:  # noqa: BLE001 - a thread of its own; it is an answer
            self._count("failed")
            self._log(command.method, error)
            text = _text(error)
            self._answers.reply(command, text, kind="error", error=type(error).__name__)

    def _log(self, method: str, error: BaseException) -> None:
        """Write down why a command was not done: all of it, unless the handler refused."""
        if isinstance(error, UsageError):
            logger.info("node %s does not do %s: %s", self._node.name, method, error)
        else:
            logger.info("%s failed on node %s", method, self._node.name, exc_info=error)

    def _send_items(self, job: Job, items: Generator[object, Any, object]) -> bool:
        """Send what a handler yields; return False if its caller left before the end."""
        command = job.command
        listened = command.ttl is not None and command.reply_to is not None
        over = job.received + (command.ttl or 0.0) if listened else float("inf")
        trusting = job.entry.meta.kind == "inspect" or self._guard.open
        return self._streams.send(command, items, over, trusting=trusting)

    # --- the journal ------------------------------------------------------------------------------

    def _record(self, job: Job) -> None:
        """Keep a command that outlasts its moment for nodes that come later."""
        seconds = job.entry.meta.journal
        if seconds <= 0:
            return
        entry = entry_of(job.command, self._wiring.time.time() + seconds)
        self._note_seen(entry.ticket)
        try:
            self._wiring.directory.record(entry)
        except QueueCoreError as error:
            logger.warning("%s is not kept for later nodes: %s", job.command.method, error)

    def learn(self) -> None:
        """Do what a node that was here before us would remember. Blocks while handlers run."""
        for entry in self._wiring.directory.journal():
            if entry.ticket not in self._seen and self._believes(entry):
                self._note_seen(entry.ticket)
                self._apply(entry.command())

    def _believes(self, entry: JournalEntry) -> bool:
        """Whether an entry of the journal is what it says.

        One that is not must not take the ticket of the true one, which is not learned then.
        """
        command, panel = entry.command(), self._node.panel
        known = command.method in panel
        most = panel.find(command.method).meta.journal if known else math.inf
        objection = self._guard.doubt(command, most)
        if objection is None and entry.until > self._wiring.time.time() + most + SKEW:
            objection = "it would be remembered for too long"
        if objection is not None:
            audit.warning("%s did not learn %s: %s", self._node.name, command.method, objection)
        return objection is None

    def _note_seen(self, ticket: str) -> None:
        """An entry of the journal is learned once, however many nodes tell it."""
        self._seen[ticket] = None
        if len(self._seen) > 2 * MAX_ENTRIES:
            self._seen = dict.fromkeys(list(self._seen)[-MAX_ENTRIES:])

    def _apply(self, command: Command) -> None:
        node = self._node
        if not command.address.includes(node.name, node.labels) or command.method not in node.panel:
            return
        entry = node.panel.find(command.method)
        if entry.meta.journal <= 0 or not self._answers.begin(command):
            return
        try:
            entry.handler(node.state, **entry.bind(command.arguments))
        except Exception:
            logger.exception("%s could not be learned from the journal", command.method)
        else:
            audit.info("%s learned %s %s", node.name, command.method, command.ticket)
            self._count("learned")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a handler's exception may do anything
        return f"its text cannot be shown: {type(broken).__name__}"

"""A node: takes commands out of its queue, runs their handlers, and answers.

One thread takes commands; handlers run on others (`queue_core.mailbox.runner`), so that a slow one
never stands in the way of a ``ping``. What a node promises:

- A command is run at most once; when it comes again, the same answer is sent again.
- A command that comes too late is not run, and the caller hears so.
- Whatever a handler raises is an answer. ``SystemExit`` is one too: the node answers, then leaves.
- What cannot be read, is for others, or is not allowed is counted (`Node.counts`), and the node
  goes on. Whatever may change something is written to the logger ``queue_core.mailbox.audit``.
- Commands are taken at a bounded rate, so that a flood of them leaves the program beside it alone.
  Those that somebody waits for overtake the others, of which no more than `MAX_WAITING` wait.
- Of two nodes with one name the newer stays; the older stops listening and says so.

Here is how a node comes, stays and goes; what it does with a command stands in
`queue_core.mailbox.reception`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypeVar
from weakref import WeakValueDictionary

import msgspec

from queue_core import (
    AccessRefused,
    Binding,
    Connection,
    Deadline,
    Message,
    PerProcess,
    QueueCoreError,
    TopologyMismatch,
    UsageError,
    process_id,
)
from queue_core.mailbox.builtin import Profile
from queue_core.mailbox.directory import Labels
from queue_core.mailbox.inbox import Inbox, private_queue
from queue_core.mailbox.pace import RATE, Pace
from queue_core.mailbox.panel import Handler, Kind, Panel
from queue_core.mailbox.reception import Reception
from queue_core.mailbox.runner import Runner
from queue_core.mailbox.serving import serve
from queue_core.mailbox.signing import Guard
from queue_core.mailbox.wire import CALL, node_queue
from queue_core.mailbox.wiring import Wiring

logger = logging.getLogger(__name__)

H = TypeVar("H", bound=Handler)

PREFETCH: Final = 50
COMMAND_TTL: Final = 300.0
"""Seconds that a command without a ttl of its own waits for a node at most."""
MAX_WAITING: Final = 10_000
"""Commands that may wait for a node during a flood; of more, none is kept."""
_LOOK: Final = 1.0
_POLL: Final = 4.0
"""Seconds of one wait for commands: two of those that a broker lets last."""

_REJOIN: Final = 30.0
_RETRY: Final = 0.05


class NameTaken(UsageError):
    """Another node of this name is there and does not leave."""


class _Place:
    """One queue of one connection, and the node that took it last: one after the other.

    To the broker a queue is the connection's: it cannot tell apart two nodes that share one, even
    of two mailboxes.
    """

    def __init__(self) -> None:
        self.taking = threading.Lock()
        self.node: Node | None = None


class _Places:
    """Those of this process; each lasts as long as a node that took it or wants to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[tuple[int, str], _Place] = WeakValueDictionary()

    def find(self, connection: Connection, queue: str) -> _Place:
        """Return the same place for all who ask for the same."""
        with self._lock:
            return self._known.setdefault((id(connection), queue), _Place())


_places: Final = PerProcess(_Places)


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
        self.labels = dict(labels)
        self.panel = Panel(*([panel] if panel is not None else []))
        self.counts: Counter[str] = Counter()
        """How many commands were ``handled``, ``failed``, ``expired``, ``refused``, ``malformed``,
        ``unknown``, ``repeated``, ``learned``, ``left`` by their caller, ``dropped``, or for
        ``others``."""
        self._wiring = wiring
        self._guard = guard
        self._on_duplicate = on_duplicate
        self._profile = Profile(name, state, self.labels, self.panel, os.urandom(8).hex())
        self._runner = Runner(f"{name} handlers")
        self._reception = Reception(
            self._profile, wiring, guard, self._runner, self.counts, self._leave_soon
        )
        self._pace = Pace(wiring.time)
        self._pid: int | None = None  # of the process in which it runs
        self._stopping = threading.Event()
        self._lost = False
        self._rejoin = 0.0
        self._learned = False
        self._naming = threading.Lock()  # held while others are told that it is there, or left
        self._look = 0.0
        self._inbox: Inbox | None = None
        self._place: _Place | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> Any:
        """What handlers get as their first argument."""
        return self._profile.state

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
        entry = self._reception.find(method)
        return entry.handler(self.state, **entry.bind(arguments))

    def handle_call(self, method: str, arguments: Mapping[str, Any] = {}) -> Any:  # noqa: B006
        """Do what a call from outside would do, and return its answer. As `dispatch`."""
        return self.dispatch(method, arguments)

    def handle_cast(self, method: str, arguments: Mapping[str, Any] = {}) -> None:  # noqa: B006
        """Do what a cast from outside would do; nobody answers. As `dispatch`."""
        self.dispatch(method, arguments)

    # --- coming and going -------------------------------------------------------------------------

    def start(self, timeout: float = 60.0) -> Self:
        """Come: declare the queue, learn the journal, and serve on a thread of its own.

        Blocks for some round trips; at most ``timeout`` seconds while another node has the name
        (an older one that was killed has it until its lease ends).

        Raises:
            NameTaken: another node has the name, and does not leave, or should not.
            UsageError: it runs in the process that this one was forked from.
            ConnectionLost, AccessRefused: the broker cannot be used.
        """
        if self._pid not in (None, process_id()):
            raise UsageError(f"node {self.name!r} runs in the parent process; make one in this one")
        if self._thread is not None:
            return self
        self._pid = process_id()
        deadline = Deadline.after(timeout, self._wiring.time)
        queue = node_queue(self._wiring.namespace, self.name)
        self._place = _places.get().find(self._wiring.connection, queue)
        if not self._place.taking.acquire(timeout=deadline.bound(threading.TIMEOUT_MAX)):
            raise self._name_taken()
        try:
            if self._thread is None:
                self._come(self._place, deadline)
        finally:
            self._place.taking.release()
        return self

    def _come(self, place: _Place, deadline: Deadline) -> None:
        self._inbox = self._declare(place.node, deadline)
        self._guard.begin()
        if self._guard.open:
            logger.debug("node %s obeys everybody who can publish to its broker", self.name)
        try:
            self._reception.learn()
            self._wiring.directory.join(self.name, self.labels)
        except BaseException:
            self._delete_queue(self._inbox)  # else it would be there, and nobody in it
            raise
        self._rejoin = time.monotonic() + _REJOIN
        self._thread = threading.Thread(target=self._serve, name=f"node {self.name}", daemon=True)
        self._thread.start()
        place.node = self

    def _declare(self, older: Node | None, deadline: Deadline) -> Inbox:
        wiring, asked = self._wiring, False
        wiring.connection.declare(wiring.reply_exchange)
        queue = private_queue(
            wiring.connection,
            node_queue(wiring.namespace, self.name),
            exchange=wiring.exchange,
            ttl=COMMAND_TTL,
            priorities=CALL,
        )
        if wiring.peers is not None:
            wiring.connection.declare(wiring.peers)
            queue = msgspec.structs.replace(
                queue, bindings=(Binding(wiring.peers.name, queue.name),)
            )
        while True:
            held: QueueCoreError | None = None
            if older is None or older.wait(0.0):
                try:
                    return Inbox(wiring.connection, queue, prefetch=PREFETCH, accept=wiring.accept)
                except (AccessRefused, TopologyMismatch) as error:
                    held = error
            if self._on_duplicate == "refuse" or deadline.expired:
                raise self._name_taken() from held
            if not asked:
                logger.warning("another node is called %s; asking it to leave", self.name)
                wiring.cast(self.name, "qc.leave", {"life": self._profile.life})
                asked = True
            wiring.time.sleep(deadline.bound(_RETRY))

    def _name_taken(self) -> NameTaken:
        return NameTaken(
            f"another node is called {self.name!r} in the namespace {self._wiring.namespace!r}; "
            "give this one another name, or stop the other"
        )

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the node has left, at most ``timeout`` seconds; return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def stop(self, timeout: float = 10.0) -> None:
        """Leave: take nothing more, let running handlers end, delete the queue.

        May be called twice, and from a handler. In a forked child it does nothing: the node is its
        parent's. Blocks at most about ``timeout`` seconds.
        """
        if self._pid not in (None, process_id()):
            return
        self._leave_soon()
        if threading.current_thread() is self._thread or self._runner.is_own_thread():
            return
        self._runner.stop(timeout)
        self.wait(timeout)

    def _leave_soon(self) -> None:
        self._stopping.set()
        self._reception.stop()
        if self._inbox is not None:
            self._inbox.stop()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self.stop()

    # --- serving, on the node's thread ------------------------------------------------------------

    def _serve(self) -> None:
        serve(self._step, self._stopping, f"node {self.name} cannot take commands")
        self._say_goodbye()

    def _step(self) -> None:
        assert self._inbox is not None, "started"
        asked = time.monotonic()
        try:
            message = self._inbox.receive(_POLL)
        except (AccessRefused, TopologyMismatch) as error:
            # We were away for longer than our lease, and somebody else has the name now.
            logger.warning("node %s leaves: its queue is another's now: %s", self.name, error)
            self._lost = True
            self._stopping.set()
            return
        if message is not None:
            # Later than it may be: this process stood still, and the message may have come before.
            self._take(message, min(time.monotonic(), asked + _POLL))
        if time.monotonic() >= self._rejoin:
            self._rejoin = time.monotonic() + _REJOIN
            self._runner.submit("qc.rejoin", 1, self._join_again)

    def _join_again(self) -> None:
        """Say that we are there, on a handlers' thread: commands do not wait for a store.

        The first time also learn what others got before our queue was there and kept after we came.
        """
        try:
            with self._naming:
                if not self._stopping.is_set():
                    self._wiring.directory.join(self.name, self.labels, again=True)
            if not self._learned:
                self._reception.learn()
                self._learned = True
        except QueueCoreError as error:
            logger.warning("node %s cannot say that it is there: %s", self.name, error)

    def _say_goodbye(self) -> None:
        assert self._inbox is not None, "started"
        self._stopping.set()
        if self._lost:
            self._inbox.close()
            return
        try:
            with self._naming:
                self._wiring.directory.leave(self.name)
        except QueueCoreError as error:
            logger.debug("node %s cannot say that it leaves: %s", self.name, error)
        self._delete_queue(self._inbox)

    def _delete_queue(self, inbox: Inbox) -> None:
        try:
            inbox.delete()
        except QueueCoreError as error:
            logger.debug("node %s leaves its queue to its connection's end: %s", self.name, error)

    def _take(self, message: Message, received: float) -> None:
        if not message.body:
            return  # it only looks whether this node is there
        if pause := self._pace.pause():
            self._drop_surplus()
            self._stopping.wait(pause)
        self._reception.take(message, received)

    def _drop_surplus(self) -> None:
        """While commands come faster than they may be taken, let no more wait than is good."""
        if time.monotonic() < self._look or self._inbox is None:
            return
        self._look = time.monotonic() + _LOOK
        try:
            dropped = self._inbox.shed(MAX_WAITING)
        except QueueCoreError as error:
            logger.debug("node %s cannot see what waits for it: %s", self.name, error)
            return
        if dropped:
            self.counts["dropped"] += dropped
            logger.warning(
                "node %s dropped %d commands: more than %d waited, and it takes %.0f a second",
                self.name,
                dropped,
                MAX_WAITING,
                RATE,
            )

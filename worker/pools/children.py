"""Child processes as their parent holds them: processes, the sockets to them, what they may start.

Children are forked by a process that has imported the app and done nothing else, or they are fresh
interpreters (`queue_core.worker.pools.launching`), so that no lock and no socket of the worker is
inherited. A child dies with this process (`queue_core.worker.pools.lifeline`).
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec

from queue_core.worker.outcome import Job, News, Outcome
from queue_core.worker.pools.frames import (
    CHUNK,
    FromChild,
    Imported,
    NotReady,
    Reader,
    Setup,
    pack,
)
from queue_core.worker.pools.grants import STOP, Grants
from queue_core.worker.pools.launching import Fresh, Inherited, Process, Template, TemplateLost

logger = logging.getLogger(__name__)

PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """A process that runs jobs. Nothing here blocks but the constructor."""

    def __init__(self, launch: Callable[[Inherited], Process], first: bytes) -> None:
        """Start it, with ``first`` to read. Raises OSError."""
        ours, theirs = socket.socketpair()
        grants = Grants()
        watched, alive = os.pipe()  # ours to hold: closing it kills the child
        inherited = (theirs.fileno(), grants.child_fd, watched)
        try:
            self.process = launch(inherited)
        except BaseException:
            ours.close()
            grants.close()
            os.close(alive)
            raise
        finally:
            theirs.close()
            os.close(watched)
        ours.setblocking(False)
        self.link = ours
        self.pid = self.process.pid
        self.silent = False  # nothing more will be heard of it
        self.killed = False
        self.said_goodbye = False
        self._stopping = False
        self._alive = alive
        self._grants = grants
        self._reader: Reader[FromChild] = Reader(FromChild)
        self._unsent = bytearray(first)

    def give(self, jobs: Iterable[Job]) -> None:
        """Send jobs, and let it start them."""
        tickets = []
        for job in jobs:
            self._unsent += pack(job)
            tickets.append(job.ticket)
        self.send()
        self._grants.give(tickets)

    def send(self) -> bool:
        """Send what the socket takes; return whether everything is sent."""
        try:
            while self._unsent:
                del self._unsent[: self.link.send(self._unsent[:CHUNK])]
        except BlockingIOError:
            return False
        except OSError:  # it died; reading will say so
            self._unsent.clear()
        return True

    def take_back(self) -> list[int]:
        """Return the tickets of those jobs that it has not started, and now never will."""
        found = self._grants.take_back()
        if self._stopping:  # that was taken back, too
            self.stop()
        return found

    def stop(self) -> None:
        """Let it leave when it has nothing to do any more."""
        self._stopping = True
        self._grants.give((STOP,))

    def interrupt(self, ticket: int, number: int) -> None:
        """Interrupt a job, if it runs. Nothing else may be granted."""
        self._grants.take_back()
        self._grants.give((-ticket, STOP) if self._stopping else (-ticket,))
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it; it is `gone` a moment later."""
        self.killed = True
        self.process.send_signal(signal.SIGKILL)

    def receive(self) -> Iterable[FromChild] | None:
        """Return messages that have arrived; None if there will be no more.

        Raises `msgspec.DecodeError`, now or while iterating, if it talks nonsense.
        """
        try:
            data = self.link.recv(CHUNK)
        except BlockingIOError:
            return ()
        except OSError:
            return None
        return self._reader.feed(data) if data else None

    def gone(self) -> str | None:
        """How it has ended; None while it lives."""
        return self.process.ended()

    def memory(self) -> int | None:
        """Its resident memory in bytes; None where that cannot be known."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * PAGE
        except (OSError, IndexError):
            return None

    @property
    def expected(self) -> bool:
        """Whether its end is no surprise."""
        return self.killed or self.said_goodbye or self._stopping

    def close(self) -> None:
        """Release what is ours of it; a process that still lives is killed by that."""
        self.link.close()
        self._grants.close()
        os.close(self._alive)


class Children:
    """All children of a pool: what `supervisor.Supervisor` acts through, its `Effects`.

    Attributes:
        told: outcomes, and news of jobs before those, in their order.
    """

    def __init__(self, setup: Setup) -> None:
        """Nobody is started."""
        self._setup = setup
        self._template: Template | None = None
        self._candidate: Template | None = None
        self._selector = selectors.DefaultSelector()
        self._writing: set[Child] = set()
        self.by_pid: dict[int, Child] = {}
        self.told: list[tuple[int, Outcome | News]] = []

    # --- what the supervisor asks for ------------------------------------------------------------

    def start(self) -> int:
        """Start a child."""
        try:
            child = self._launch()
        except OSError as error:
            logger.error("a child cannot be started: %s", error)
            raise
        self.by_pid[child.pid] = child
        self._selector.register(child.link, selectors.EVENT_READ, child)
        self._flush(child)
        return child.pid

    def give(self, pid: int, jobs: list[Job]) -> None:
        """Send jobs to a child."""
        child = self.by_pid[pid]
        child.give(jobs)
        self._flush(child)

    def take_back(self, pid: int) -> list[int]:
        """Return the tickets of jobs that it has not begun."""
        return self.by_pid[pid].take_back()

    def stop(self, pid: int) -> None:
        """Let it leave."""
        self.by_pid[pid].stop()

    def interrupt(self, pid: int, ticket: int, number: int) -> None:
        """Interrupt a job."""
        self.by_pid[pid].interrupt(ticket, number)

    def kill(self, pid: int) -> None:
        """Kill it."""
        self.by_pid[pid].kill()

    def tell(self, ticket: int, outcome: Outcome) -> None:
        """Keep an outcome until the pool reports it."""
        self.told.append((ticket, outcome))

    # --- the pool's thread -----------------------------------------------------------------------

    def watch(self, fd: int) -> None:
        """End `wait` when this descriptor is readable, too."""
        self._selector.register(fd, selectors.EVENT_READ, None)

    def wait(self, seconds: float | None) -> list[Child | Template | None]:
        """Wait until something can be read; None stands for what `watch` was given."""
        found: list[Child | Template | None] = []
        for key, events in self._selector.select(seconds):
            item: Child | Template | None = key.data
            if isinstance(item, Child) and events & selectors.EVENT_WRITE:
                self._flush(item)
            if events & selectors.EVENT_READ:
                found.append(item)
        return found

    def import_app(self) -> None:
        """Begin to import the app, in a process that forks the children from then on.

        `wait` returns it when `imported` should be called. Raises OSError.
        """
        self.end_import()
        self._candidate = Template(self._setup)
        self._selector.register(self._candidate.control, selectors.EVENT_READ, self._candidate)

    @property
    def forks(self) -> bool:
        """Whether children are forked, or will be."""
        return (self._candidate or self._template) is not None

    def imported(self, template: Template) -> Imported | NotReady | None:
        """Return how the import of the app went; None: it goes on. Children are forked by that."""
        if template is not self._candidate:
            return None
        said: Imported | NotReady | None
        messages = template.hear()
        if messages is None:
            how = f"a child ended while it imported the app: {template.how()}"
            said = NotReady(how, "", "", "")
        else:
            said = next((each for each in messages if isinstance(each, Imported | NotReady)), None)
        if said is None:
            return None
        self._selector.unregister(template.control)
        self._candidate = None
        if isinstance(said, Imported) and self._template is not None:
            self._template.retire()
            self._template = None
        if isinstance(said, Imported) and not said.unfit:
            self._template = template
        else:
            template.dismiss()
        return said

    def end_import(self) -> None:
        """Give up an import of the app that goes on; children are made as they were before."""
        if self._candidate is not None:
            self._selector.unregister(self._candidate.control)
            self._candidate.close()
            self._candidate = None

    def _launch(self) -> Child:
        """Start a child in the best way there is."""
        if self._template is not None:
            try:
                return Child(self._template.fork, b"")
            except TemplateLost as error:
                logger.warning("%s; children are fresh interpreters from now on", error)
                self._template = None
        return Child(partial(Fresh, __package__ + ".child"), pack(self._setup))

    def hear(self, child: Child) -> Iterator[FromChild]:
        """Yield what a child has sent; it is ``silent`` when that was the last."""
        try:
            messages = child.receive()
            if messages is not None:
                yield from messages
                return
        except msgspec.DecodeError:
            logger.exception("child %d talks nonsense; it is replaced", child.pid)
            child.kill()
        self._mute(child)

    def last_words(self, child: Child) -> Iterator[FromChild]:
        """Yield what a child that is gone has still sent."""
        size = -1
        while not child.silent and size:
            size = 0
            for message in self.hear(child):
                size += 1
                yield message

    def forget(self, child: Child) -> None:
        """Release what is ours of a child that is gone."""
        self._mute(child)
        child.close()
        del self.by_pid[child.pid]

    def close(self) -> None:
        """Forget everybody; who still lives is killed."""
        for child in self.by_pid.values():
            child.kill()
            self._mute(child)
            child.close()
            child.process.wait()
        self.by_pid.clear()
        self.end_import()
        if self._template is not None:
            self._template.close()
        self._selector.close()

    def _flush(self, child: Child) -> None:
        """Send what can be sent now, and look for more room if that was not all."""
        done = child.silent or child.send()
        if done == (child not in self._writing):
            return
        events = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.modify(child.link, events, child)
        self._writing ^= {child}

    def _mute(self, child: Child) -> None:
        if not child.silent:
            child.silent = True
            self._writing.discard(child)
            self._selector.unregister(child.link)

"""Child processes as their parent holds them: processes, the sockets to them, what they may start.

Children are fresh interpreters, so that no lock and no socket of the worker is inherited. A child
dies with this process (see `queue_core.worker.pools.child`).
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator

import msgspec

from queue_core.worker.outcome import Job, News, Outcome
from queue_core.worker.pools.frames import CHUNK, FromChild, Reader, Setup, pack
from queue_core.worker.pools.grants import STOP, Grants

logger = logging.getLogger(__name__)

PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """A process that runs jobs. Nothing here blocks but the constructor."""

    def __init__(self, setup: Setup) -> None:
        """Start it. Raises OSError."""
        ours, theirs = socket.socketpair()
        grants = Grants()
        watched, alive = os.pipe()  # ours to hold: closing it kills the child
        inherited = (theirs.fileno(), grants.child_fd, watched)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __package__ + ".child", *map(str, inherited)],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
            )
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
        self._unsent = bytearray(pack(setup))

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

    def cut(self, ticket: int, number: int) -> None:
        """Interrupt a job, if it runs. Nothing else may be granted."""
        self._grants.take_back()
        self._grants.give((-ticket, STOP) if self._stopping else (-ticket,))
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it; it is `gone` a moment later."""
        self.killed = True
        self.process.kill()

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
        code = self.process.poll()
        if code is None:
            return None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

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
    """All children of a pool: the `queue_core.worker.pools.crew.Outside` of its crew.

    Attributes:
        told: outcomes, and news of jobs before those, in their order.
    """

    def __init__(self, setup: Setup) -> None:
        """Nobody is started."""
        self._setup = setup
        self._selector = selectors.DefaultSelector()
        self._writing: set[Child] = set()
        self.by_pid: dict[int, Child] = {}
        self.told: list[tuple[int, Outcome | News]] = []

    # --- what the crew asks for ------------------------------------------------------------------

    def start(self) -> int:
        """Start a child."""
        try:
            child = Child(self._setup)
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

    def cut(self, pid: int, ticket: int, number: int) -> None:
        """Interrupt a job."""
        self.by_pid[pid].cut(ticket, number)

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

    def wait(self, seconds: float | None) -> list[Child | None]:
        """Wait until something can be read; None stands for what `watch` was given."""
        found: list[Child | None] = []
        for key, events in self._selector.select(seconds):
            child: Child | None = key.data
            if child is not None and events & selectors.EVENT_WRITE:
                self._flush(child)
            if events & selectors.EVENT_READ:
                found.append(child)
        return found

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

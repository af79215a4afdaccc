"""The step that keeps what must survive a restart: revoked ids and the logical clock.

They are kept in one small file, which is replaced as a whole whenever an id is added, so that a
worker which is killed a moment later still knows it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from pathlib import Path
from typing import Any

import msgspec

from queue_core import ConfigError, StoreCorrupt
from queue_core.mailbox import LamportClock
from queue_core.worker.blueprint import StartStopStep
from queue_core.worker.runner import Worker

logger = logging.getLogger(__name__)

VERSION = 1
EVERY = 60.0
"""Seconds between writes that only keep the clock."""


class State(msgspec.Struct, array_like=True):
    """What is in the file.

    Attributes:
        version: of this format.
        clock: the logical time.
        revoked: id -> seconds since 1970 until which it counts.
    """

    version: int
    clock: int
    revoked: dict[str, float]


class StateFile:
    """One worker's file."""

    def __init__(self, path: str) -> None:
        """Read nothing yet."""
        self._path = Path(path)
        self._held: int | None = None

    def read(self) -> State | None:
        """Return what is in the file, None if there is none; keep others from using it.

        Raises:
            ConfigError: another worker uses it, or the place cannot be written to.
            StoreCorrupt: it is no such file, or damaged.
        """
        try:
            self._hold()
            raw = self._path.read_bytes() if self._path.exists() else None
        except BlockingIOError:
            raise ConfigError(
                f"another worker uses the state file {self._path}; each needs one of its own, such "
                "as --statedb state-%p.db or -n NAME --statedb NAME.db"
            ) from None
        except OSError as error:
            raise ConfigError(f"the state file {self._path} cannot be used: {error}") from error
        if raw is None:
            return None
        try:
            state = msgspec.msgpack.decode(raw, type=State)
        except msgspec.DecodeError as error:
            raise StoreCorrupt(
                f"{self._path} is no state file of a worker, or damaged; delete it to go on"
            ) from error
        if state.version != VERSION:
            raise StoreCorrupt(f"{self._path} was written by another version of queue-core")
        return state

    def _hold(self) -> None:
        """Lock a file beside it, which unlike itself is never replaced."""
        if self._held is None:
            held = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(held)
                raise
            self._held = held

    def write(self, state: State) -> None:
        """Replace the file; returns when it is on the disk."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        with open(fresh, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(msgspec.msgpack.encode(state))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let others use it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


class StateDB(StartStopStep):
    """Remembers what must not be forgotten."""

    requires = ("Timer",)

    def __init__(self, parent: Worker) -> None:
        """Nothing is read yet."""
        super().__init__(parent)
        self._file = StateFile(parent.statedb)
        self._saving = threading.Lock()
        self._saved: tuple[Any, ...] = ()
        self._ours = False

    def include_if(self, parent: Worker) -> bool:
        """Only with ``--statedb``."""
        return bool(parent.statedb)

    def start(self, parent: Worker) -> None:
        """Learn what was kept."""
        state = self._file.read()
        self._ours = True
        if state is not None:
            parent.revoked.update(state.revoked)
            parent.clock = LamportClock(state.clock)
        self._save(parent)
        parent.revoked.listen(lambda: self._save(parent))
        self._later(parent)

    def stop(self, parent: Worker) -> None:
        """Keep it."""
        self._save(parent)

    def shutdown(self, parent: Worker) -> None:
        """Keep it, and let others use the file."""
        with contextlib.suppress(OSError):
            self._save(parent)
        self._file.close()

    def _later(self, parent: Worker) -> None:
        def again() -> None:
            self._save(parent)
            self._later(parent)

        parent.timer.call_later(EVERY, again)

    def _save(self, parent: Worker) -> None:
        if not self._ours:  # what could not be read may be another worker's
            return
        with self._saving:  # and then look: who was here before knew less
            revoked, clock = parent.revoked.plain(), parent.clock.value
            if (revoked, clock) == self._saved:
                return
            try:
                self._file.write(State(VERSION, clock, revoked))
                self._saved = (revoked, clock)
            except OSError as error:
                logger.error("the state file cannot be written: %s", error)

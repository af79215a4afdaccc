"""Messages as files in a folder: a whole transport, to be read, tried and copied.

A transport needs a store, and a store needs atomic steps. `queue_core.state.StateStore` has all
methods of a store, each made of one step on a `State`: queues, sessions, topology. What is left
for this file is ``step``: how to get at the state alone, and how to make it safe.

- ``lock`` is locked for the length of a step, so that it is the only one, in all processes.
- ``17.message`` is the body of one message, on disk before anything names it.
- ``index`` is all else, as JSON: you can look at it. A step writes the new one beside it and
  renames it over the old: in that instant the step happens, for everybody and for good.

What dies before that instant has changed nothing: it leaves files that no index names, and a later
step writes over them or sweeps them away. The clock is `time.time`, since it must go on when every
process has ended. Not for large queues: each step reads the whole index, and a claim that waits
does so a hundred times a second.

Name it in your package's metadata and ``folder:///some/folder`` is a broker like any other::

    [options.entry_points]
    queue_core.transports =
        folder = folder_transport:transport
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

import msgspec

from queue_core import errors
from queue_core.emulation import StoreTransport
from queue_core.state import Snapshot, State, StateStore
from queue_core.transport import Features

ERRORS = {errno.ENOSPC: errors.BrokerFull, errno.EACCES: errors.AccessRefused}


class FolderStore(StateStore):
    """One handle. It keeps nothing open between two steps, so that nothing can be lost."""

    name = "folder"

    def __init__(self, folder):
        self.folder, self.index = Path(folder), Path(folder, "index")

    @contextlib.contextmanager
    def step(self):
        """Lock the folder, hand out its state, and at the end make true what was changed in it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "lock", "w") as lock, contextlib.ExitStack() as at_end:
                fcntl.flock(lock, fcntl.LOCK_EX)
                at_end.callback(fcntl.flock, lock, fcntl.LOCK_UN)  # whoever was forked has it open
                old = self.index.read_bytes() if self.index.exists() else b"{}"
                saved = msgspec.json.decode(old, type=Snapshot)
                yield (state := State(saved))
                self.save(state.snapshot(), old, saved.last)
        except msgspec.MsgspecError as error:
            raise errors.StoreCorrupt(f"{self.folder}: {error}") from error
        except OSError as error:
            raise ERRORS.get(error.errno, errors.ConnectionLost)(str(error)) from error

    def save(self, new, old, last):
        """Write the bodies of messages after the number ``last``, then the index if it differs."""
        for message in new.messages:
            if message.place > last:
                write(self.body_of(message), message.body)
                message.body = b""
        if (encoded := msgspec.json.encode(new)) != old:
            write(self.index.with_suffix(".new"), encoded)
            sync(self.folder)
            self.index.with_suffix(".new").replace(self.index)
            sync(self.folder)
            named = {self.body_of(message) for message in new.messages}
            for file in set(self.folder.glob("*.message")) - named:
                file.unlink()

    def body_of(self, message):
        """Return the file with the message's body; its place in the queue is never used twice."""
        return self.folder / f"{message.place}.message"

    def hand_over(self, message):
        """Return the claim of a message, with its body."""
        claim = super().hand_over(message)
        claim.body = self.body_of(message).read_bytes()
        return claim


def write(path, content):
    """Write a file, and return when it is on the disk; its name is there after ``sync``."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(folder):
    """Return when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(url):
    """Refuse a URL that means nothing here."""
    url.check_options(())
    if url.host or not url.database:
        raise errors.ConfigError(f"{url}: write folder:///relative or folder:////absolute/path")


FEATURES = Features(durable=True, shared=True, priority=True, delay=True, key_value=True)
transport = StoreTransport("folder", FEATURES, lambda url, _: FolderStore(url.database), check)

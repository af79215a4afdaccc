"""Who may tell nodes what: commands signed with shared keys, each under a name.

A signature covers what the command does and for whom: namespace, method, arguments, destination,
ticket, ttl, the time of signing, and the logical time, which orders the commands of the journal. So
a captured command cannot be altered, sent to another node or namespace, or sent again: a node
remembers the tickets that it accepted for as long as their signatures are good, and refuses what
was signed too long ago or before the node was started.

HMAC with SHA-256 (RFC 2104). Whoever has a key can sign with it: give each operator one of their
own, and nodes all of those that they should obey. The signer's clock and the node's must agree
within `SKEW` seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from queue_core import Clock, ConfigError
from queue_core.mailbox.wire import Command

SKEW: Final = 30.0
"""Seconds that two clocks may differ."""
ETERNITY: Final = 300.0
"""Seconds that the signature of a command without ttl is good."""
MIN_SECRET: Final = 16
"""Bytes that a secret must have."""
_FORGET: Final = 10.0
"""Seconds between two looks for tickets whose signatures are not good any more."""


class SigningKey:
    """A secret and its name, which nodes write into their audit log. Never shows the secret."""

    __slots__ = ("_namespace", "_secret", "name")

    def __init__(self, name: str, secret: bytes | str) -> None:
        """Take a secret of at least 16 bytes; a string is UTF-8.

        Raises:
            ConfigError: the name is empty or the secret too short.
        """
        if not name:
            raise ConfigError("a signing key needs a name: it says in the audit log who it was")
        self.name = name
        self._namespace = ""
        self._secret = secret.encode() if isinstance(secret, str) else bytes(secret)
        if len(self._secret) < MIN_SECRET:
            raise ConfigError(
                f"the secret of key {name!r} has {len(self._secret)} bytes and needs {MIN_SECRET}; "
                "make one with: python -c 'print(__import__(\"secrets\").token_hex(32))'"
            )

    @classmethod
    def from_file(cls, name: str, file: Path | str) -> SigningKey:
        """Read the secret from a text file; white space around it does not count.

        Raises:
            ConfigError: as above, or the file cannot be read.
        """
        try:
            return cls(name, Path(file).read_text(encoding="utf-8").strip())
        except OSError as error:
            raise ConfigError(f"the key {name!r} cannot be read: {error}") from error
        except UnicodeDecodeError:  # which says what stands there
            raise ConfigError(f"the key {name!r} in {file} is no text") from None

    def within(self, namespace: str) -> SigningKey:
        """Return the key for the commands of one namespace; a mailbox does that with its keys."""
        key = SigningKey(self.name, self._secret)
        key._namespace = namespace
        return key

    def sign(self, command: Command, clock: Clock) -> Command:
        """Return the command with this key's name, the time, and the signature."""
        named = msgspec.structs.replace(command, key=self.name, signed_at=clock.time())
        return msgspec.structs.replace(named, signature=self._signature(named))

    def made(self, command: Command) -> bool:
        """Return whether this key made the command's signature."""
        try:
            signature = self._signature(command)
        except (TypeError, ValueError):  # its arguments have no form in JSON: nobody signed them
            return False
        return hmac.compare_digest(signature.encode(), command.signature.encode())

    def _signature(self, command: Command) -> str:
        text = _what_is_signed(command, self._namespace)
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        """Show the name only."""
        return f"<SigningKey {self.name}>"


def _what_is_signed(command: Command, namespace: str) -> bytes:
    """Return the same bytes here and there: JSON with sorted keys and without spaces."""
    body: dict[str, Any] = command.body()
    body.pop("reply_to", None)
    body |= {
        "namespace": namespace,
        "labels": dict(command.address.labels),
        "ttl": None if command.ttl is None else float(command.ttl),
        "key": command.key,
        "signed_at": command.signed_at,
        "clock": command.clock if type(command.clock) is int else None,
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


class Guard:
    """What one node accepts. Thread-safe; does not block.

    Without keys everybody may do everything, as in celery.
    """

    def __init__(self, keys: Mapping[str, SigningKey], clock: Clock) -> None:
        """Accept these keys, by name, from `begin` on."""
        self._keys = dict(keys)
        self._clock = clock
        self._since = clock.time()
        self._lock = threading.Lock()
        self._accepted: dict[str, float] = {}
        self._looked_at = 0.0

    def begin(self) -> None:
        """The node starts now: what was signed before was for another life of it.

        That life may have accepted it, and its tickets are forgotten. So this is strict: a signer
        whose clock is slow is refused for as many seconds as it is behind.
        """
        self._since = self._clock.time()

    @property
    def open(self) -> bool:
        """No keys are configured."""
        return not self._keys

    def objection(self, command: Command) -> str | None:
        """Return why a command that changes something is refused, or None; then it is used up."""
        if not self._keys:
            return None
        if not command.key:
            return "it is not signed"
        key = self._keys.get(command.key)
        if key is None:
            return f"this node does not know the key {command.key!r}"
        if not key.made(command):
            return f"its signature was not made by the key {command.key!r}"
        now = self._clock.time()
        good_until = command.signed_at + (ETERNITY if command.ttl is None else command.ttl) + SKEW
        if now > good_until:
            return f"it was signed {now - command.signed_at:.0f} s ago"
        if command.signed_at > now + SKEW:
            return f"it was signed {command.signed_at - now:.0f} s in the future; set the clocks"
        if command.signed_at < self._since:
            return "it was signed before this node was started"
        if not command.ticket or not self._use(command.ticket, now, good_until):
            return "it was accepted before: somebody sent it again"
        return None

    def doubt(self, command: Command, seconds: float) -> str | None:
        """Return why a command of the journal is not believed, or None.

        It may have been signed up to ``seconds`` ago, and before this node was started.
        """
        if not self._keys:
            return None
        key = self._keys.get(command.key)
        if key is None or not key.made(command):
            return "it is not signed with a key that this node knows"
        if self._clock.time() > command.signed_at + seconds + SKEW:
            return "it was signed too long ago"
        return None

    def _use(self, ticket: str, now: float, good_until: float) -> bool:
        with self._lock:
            if abs(now - self._looked_at) >= _FORGET:
                for old in [name for name, until in self._accepted.items() if until < now]:
                    del self._accepted[old]
                self._looked_at = now
            if ticket in self._accepted:
                return False
            self._accepted[ticket] = good_until
            return True

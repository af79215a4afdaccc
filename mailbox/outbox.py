"""Sending the answers of many nodes in few steps.

The nodes of a process hear a command to all at the same moment, and so they answer it at the same
moment. An answer sent by itself is a round trip, and on a store a step of its own. So answers go
together: whoever finds the way free sends at once, and whoever comes meanwhile waits until it is
free, and then sends everything that has gathered. Nobody waits for others to come.
"""

from __future__ import annotations

import threading

from queue_core import Connection, NotConfirmed, Publication, TransportError


class _Letter:
    """One answer on its way."""

    __slots__ = ("done", "error", "publication")

    def __init__(self, publication: Publication) -> None:
        self.publication = publication
        self.done = False
        self.error: Exception | None = None


class Outbox:
    """Where the nodes of one mailbox, in one process, send their answers. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        """Send nothing yet."""
        self._producer = connection.producer()
        self._way = threading.Lock()  # held while something is sent
        self._adding = threading.Lock()  # held while the letters change
        self._letters: list[_Letter] = []

    def send(self, publication: Publication) -> None:
        """Send an answer and wait until the broker has it: a round trip, or two in a crowd.

        What must find its queue (``mandatory``) goes alone, so that nobody else hears of it if it
        does not.

        Raises what `Producer.publish_many` raises. What is wrong with one answer keeps no other
        from being sent.
        """
        if publication.mandatory:
            self._producer.publish_many((publication,))
            return
        letter = _Letter(publication)
        with self._adding:
            self._letters.append(letter)
        with self._way:
            if not letter.done:
                self._send_all()
        if letter.error is not None:
            raise letter.error

    def _send_all(self) -> None:
        with self._adding:
            letters, self._letters = self._letters, []
        self._send_together(letters)
        for letter in letters:
            letter.done = True

    def _send_together(self, letters: list[_Letter]) -> None:
        try:
            self._producer.publish_many([letter.publication for letter in letters])
        except Exception as error:
            if len(letters) > 1 and not _is_of_all(error):
                for letter in letters:  # once more, if it was sent: who asked sees that
                    self._send_together([letter])
                return
            for letter in letters:
                letter.error = error


def _is_of_all(error: Exception) -> bool:
    """Whether it is the broker that cannot be reached, whatever is sent."""
    return isinstance(error, NotConfirmed) or (
        isinstance(error, TransportError) and error.retryable
    )

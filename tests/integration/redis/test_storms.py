"""Many clients that lost their server at once: they come back spread over time, and all do."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import pytest

from queue_core import Backoff, Connection, Queue
from queue_core.testing.eventually import eventually
from queue_core.testing.faults import FaultProxy

CLIENTS = 100
OUTAGE = 3.0


class Noted(Backoff, frozen=True):
    """Notes for when it lets its client try again, by ``time.monotonic()``."""

    knocks: list[float] = []

    def delay(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        seconds = super().delay(attempt, draw)
        self.knocks.append(time.monotonic() + seconds)
        return seconds


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_w18_a_hundred_clients_come_back_one_by_one_after_an_outage(redis_url):
    """Bunched would be all of them at once, as soon as the server is there again.

    What counts is when each one knocks: how long the rest takes is a matter of the machine.
    """
    place = urlsplit(redis_url)
    queue = Queue("w18", expires=600)
    with FaultProxy(place.hostname, place.port) as proxy:
        login, at, _ = place.netloc.rpartition("@")
        url = urlunsplit(place._replace(netloc=f"{login}{at}127.0.0.1:{proxy.port}"))
        waits = [Noted(cap=5.0) for _ in range(CLIENTS)]  # 30 s would make this last a minute
        clients = [Connection(url, timeout=120.0, backoff=wait) for wait in waits]
        try:
            for client in clients:
                client.connect()
            clients[0].declare(queue)
            proxy.refuse(reset=True)
            back: list[Connection] = []

            def return_to(client):
                client.inspect(queue)
                back.append(client)

            threads = [threading.Thread(target=return_to, args=(one,)) for one in clients]
            for thread in threads:
                thread.start()
            time.sleep(OUTAGE)
            proxy.heal()
            eventually(lambda: len(back) == CLIENTS, 120.0)
        finally:
            for client in clients:
                client.close()
    in_half_a_second = Counter(int(wait.knocks[-1] * 2) for wait in waits)
    assert max(in_half_a_second.values()) <= CLIENTS / 2, sorted(in_half_a_second.items())

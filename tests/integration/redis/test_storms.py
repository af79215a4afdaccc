"""Many clients that lost their server at once: they come back spread over time, and all do."""

from __future__ import annotations

import threading
import time
from collections import Counter
from urllib.parse import urlsplit, urlunsplit

import pytest

from queue_core import Backoff, Connection, Queue
from queue_core.testing.eventually import eventually
from queue_core.testing.faults import FaultProxy

CLIENTS = 100
OUTAGE = 3.0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_w18_a_hundred_clients_come_back_one_by_one_after_an_outage(redis_url):
    """Bunched would be all of them at once, as soon as the server is there again."""
    place = urlsplit(redis_url)
    queue = Queue("w18", expires=600)
    with FaultProxy(place.hostname, place.port) as proxy:
        login, at, _ = place.netloc.rpartition("@")
        url = urlunsplit(place._replace(netloc=f"{login}{at}127.0.0.1:{proxy.port}"))
        waits = Backoff(cap=5.0)  # 30 s is the usual one, and would make this last a minute
        clients = [Connection(url, timeout=120.0, backoff=waits) for _ in range(CLIENTS)]
        try:
            for client in clients:
                client.connect()
            clients[0].declare(queue)
            proxy.refuse(reset=True)
            back: list[float] = []

            def return_to(client):
                client.inspect(queue)
                back.append(time.monotonic())

            threads = [threading.Thread(target=return_to, args=(one,)) for one in clients]
            for thread in threads:
                thread.start()
            time.sleep(OUTAGE)
            healed = time.monotonic()
            proxy.heal()
            eventually(lambda: len(back) == CLIENTS, 120.0)
        finally:
            for client in clients:
                client.close()
    in_half_a_second = Counter(int((moment - healed) * 2) for moment in back)
    assert max(in_half_a_second.values()) <= CLIENTS / 2, sorted(in_half_a_second.items())

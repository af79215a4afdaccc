"""redis-py: a list of ready messages, a list of taken ones per consumer, one script for both.

A claim moves up to k messages to the consumer's own list and drops those that it had before: they
are handled. A consumer that dies leaves its list behind for somebody to push back. The ping-pong is
plain LPUSH and BRPOP, which loses what a consumer holds when it dies: the least that two round
trips can cost.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import redis

from benchmarks.adapter import payload
from benchmarks.contestants.plain_mailbox import ANSWERS, COMMANDS, command

BATCH = 100
CLAIM = """
redis.call('DEL', KEYS[2])
local taken = redis.call('RPOP', KEYS[1], ARGV[1])
if not taken then return {} end
redis.call('RPUSH', KEYS[2], unpack(taken))
return taken
"""


def open_adapter(broker: str, url: str) -> RedisAdapter:
    return RedisAdapter(url)


class RedisAdapter:
    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = redis.Redis.from_url(url)
        self._claim = self._redis.register_script(CLAIM)
        info: Any = self._redis.info()
        settings: Any = self._redis.config_get("append*")
        keeps = settings["appendonly"] == "yes"
        self.facts = {
            "ack": "with the next claim, by a script",
            "publish": "LPUSH; publish_many: pipelines of 100",
            "versions": f"redis-py {redis.__version__}",
            "server": f"Redis {info['redis_version']}",
            "durability": f"appendonly, fsync {settings['appendfsync']}" if keeps else "in memory",
        }

    def clear(self, *queues: str) -> None:
        self._redis.delete(*queues)

    drop = clear

    def publish_each(self, queue: str, count: int) -> None:
        for number in range(count):
            self._redis.lpush(queue, json.dumps(payload(number)))

    def publish_many(self, queue: str, count: int) -> None:
        for start in range(0, count, BATCH):
            with self._redis.pipeline(transaction=False) as pipeline:
                for number in range(start, min(start + BATCH, count)):
                    pipeline.lpush(queue, json.dumps(payload(number)))
                pipeline.execute()

    def subscribe(self, queue: str, prefetch: int) -> _Subscription:
        return _Subscription(self._redis, self._claim, queue, prefetch)

    def peer(self, take_from: str, send_to: str) -> _Peer:
        return _Peer(self._redis, take_from, send_to)

    def nodes(self, names: Sequence[str]) -> _Nodes:
        return _Nodes(redis.Redis.from_url(self._url), names)

    def caller(self) -> _Caller:
        return _Caller(self._redis)

    def close(self) -> None:
        self._redis.close()


class _Subscription:
    def __init__(self, client: redis.Redis, claim: Any, queue: str, prefetch: int) -> None:
        self._redis = client
        self._claim = claim
        self._queue = queue
        self.latest = time.monotonic()
        self._mine = f"{queue}.taken.{uuid.uuid4().hex}"
        self._prefetch = prefetch

    def take(self, count: int, seconds: float) -> int:
        taken = 0
        end = time.monotonic() + seconds
        while taken < count and (left := end - time.monotonic()) > 0:
            room = min(self._prefetch, count - taken)
            bodies: Any = self._claim(keys=[self._queue, self._mine], args=[room])
            if not bodies:  # wait for one, and put it back where it was
                self._redis.blmove(
                    self._queue, self._queue, max(1, int(min(1.0, left))), "RIGHT", "RIGHT"
                )
            for body in bodies:
                json.loads(body)
                taken += 1
                self.latest = time.monotonic()
        self._redis.delete(self._mine)
        return taken

    def close(self) -> None:
        """Nothing was taken in advance."""


class _Peer:
    def __init__(self, client: redis.Redis, take_from: str, send_to: str) -> None:
        self._redis = client
        self._take_from = take_from
        self._send_to = send_to

    def send(self, body: dict[str, Any]) -> None:
        self._redis.lpush(self._send_to, json.dumps(body))

    def take(self) -> dict[str, Any]:
        found: Any = self._redis.brpop([self._take_from], timeout=30)
        body: dict[str, Any] = json.loads(found[1])
        return body


class _Messenger:
    """One side of commands and answers: what is not taken within ten seconds is gone."""

    def __init__(self, client: redis.Redis, take_from: str, send_to: str) -> None:
        self._redis = client
        self._take_from = take_from
        self._send_to = send_to

    def send(self, body: dict[str, Any]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.lpush(self._send_to, json.dumps(body))
            pipeline.expire(self._send_to, 10)
            pipeline.execute()

    def take(self, seconds: float) -> dict[str, Any] | None:
        found: Any = self._redis.brpop([self._take_from], timeout=seconds)
        return None if found is None else json.loads(found[1])


class _Nodes:
    """One node, and its thread."""

    def __init__(self, client: redis.Redis, names: Sequence[str]) -> None:
        (self._name,) = names
        self._redis = client
        self._redis.delete(COMMANDS, ANSWERS)
        self._ending = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        messenger = _Messenger(self._redis, COMMANDS, ANSWERS)
        while not self._ending:
            found = messenger.take(1.0)
            if found is not None:
                messenger.send({"ticket": found["ticket"], self._name: {"ok": "pong"}})

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        self._redis.close()


class _Caller:
    def __init__(self, client: redis.Redis) -> None:
        self._messenger = _Messenger(client, ANSWERS, COMMANDS)
        self._asked = 0

    def ask(self, names: Sequence[str] | None, timeout: float, most: int) -> dict[str, float]:
        self._asked += 1
        self._messenger.send(command(self._asked, names))
        answer = self._messenger.take(timeout)
        if answer is None or answer.pop("ticket") != self._asked:
            return {}
        return dict.fromkeys(answer, time.monotonic())

    def tell(self, name: str) -> None:
        self._messenger.send(command(0, [name]))

    def close(self) -> None:
        """Its connection is the adapter's."""

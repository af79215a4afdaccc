"""Tasks whose results are looked at; workers in the tests' own process run them."""

import time
from pathlib import Path

from queue_core.worker import App


class Overdrawn(Exception):
    """A class that senders may allow."""


def make_app(broker: str, backend: str | None) -> App:
    """Return an app of its own for each worker."""
    settings = {"result_max_size": 100_000, "result_failure_expires": 3600}
    app = App("result jobs", broker=broker, backend=backend, settings=settings)
    task = app.task

    @task(name="results.add")
    def add(a: int, b: int) -> int:
        return a + b

    @task(name="results.hold", track_started=True)
    def hold(path: str) -> str:
        """Run until the file is there."""
        while not Path(path).exists():
            time.sleep(0.01)
        return "held"

    @task(name="results.climb", bind=True)
    def climb(self, path: str) -> str:
        """Say how far it is, and run until the file is there."""
        self.update_state(state="PROGRESS", meta={"done": 3, "of": 10})
        while not Path(path).exists():
            time.sleep(0.01)
        return "there"

    @task(name="results.withdraw")
    def withdraw(amount: int) -> None:
        try:
            raise KeyError("balance")
        except KeyError as error:
            raise Overdrawn(amount, "too much") from error

    @task(name="results.divide")
    def divide(a: int, b: int) -> float:
        return a / b

    @task(name="results.large")
    def large(size: int) -> str:
        return "x" * size

    @task(name="results.only_errors", ignore_result=True, store_errors_even_if_ignored=True)
    def only_errors(fails: bool) -> int:
        return 1 // (not fails)

    @task(name="results.parent")
    def parent(queue: str) -> int:
        return len([add.apply_async((n, 1), queue=queue) for n in range(2)])

    return app

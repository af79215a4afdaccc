"""Read by mypy and pyright, never run: tasks keep the types of their functions.

Every ``type: ignore`` here is an error that must be found; mypy reports one that is not needed.
"""

from __future__ import annotations

from typing import Any, assert_type

from queue_core.worker import App, AsyncResult, Signature, Task, shared_task

app = App("types")


@app.task
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task(name="words.join", queue="text", priority=3)
def join(words: list[str], *, by: str = " ") -> str:
    return by.join(words)


assert_type(add(1, 2), int)
assert_type(add.delay(1), AsyncResult[int])
assert_type(add.delay(1, b=2).get(timeout=1.0), int)
assert_type(join.delay(["a"], by="-").get(), str)
assert_type(add.apply_async((1, 2), countdown=1.5).get(), int)
assert_type(add.send_many([(1, 2), (3, 4)]), list[AsyncResult[int]])

add.delay("1")  # type: ignore[arg-type]
add.delay()  # type: ignore[call-arg]
add.delay(1, c=2)  # type: ignore[call-arg]
join.delay(["a"], "-")  # type: ignore[call-arg]
add.apply_async((1,), contdown=1)  # type: ignore[call-arg]
add.apply_async((1,), priority="high")  # type: ignore[arg-type]


def takes(task: Task[[int], str]) -> str:
    return task.delay(3).get()


@app.task(bind=True, max_retries=5, rate_limit="10/s", autoretry_for=[OSError])
def fetch(self: Task[..., str], url: str) -> str:
    if not url:
        raise self.retry(countdown=2.0)
    return f"{self.request.retries} {self.request.args}"


class Telling(Task[..., Any]):
    def on_failure(
        self,
        exc: BaseException,
        task_id: str,
        args: list[Any],
        kwargs: dict[str, Any],
        einfo: str,
    ) -> None:
        print(self.request.args)


@app.task(base=Telling)
def told(n: int) -> str:
    return str(n)


@shared_task
def halve(n: float) -> float:
    return n / 2


@shared_task(bind=True, name="twice")
def twice(self: Task[..., float], n: float) -> float:
    return 2 * n


assert_type(fetch.delay("x").get(), str)
assert_type(told.delay(3).get(), str)
assert_type(halve.delay(3.0).get(), float)
assert_type(twice.delay(3.0).get(), float)
assert_type(add.s(1), Signature[int])
assert_type(add.s(1).delay(2).get(), int)
assert_type(add.si(1, 2).apply_async(countdown=3).get(), int)
assert_type(add.apply((1, 2)).get(), int)
assert_type(add.map([1, 2]), Signature[list[int]])

add.apply_async((1, 2), link=told, link_error=[told, told.s()])
add.apply_async((1, 2), link="told")  # type: ignore[arg-type]
fetch.delay()  # type: ignore[call-arg]
fetch.delay(3)  # type: ignore[arg-type]
told.delay("3")  # type: ignore[arg-type]
twice.delay(n="x")  # type: ignore[arg-type]
app.task(max_retry=3)  # type: ignore[call-overload]
app.task(priority="high")  # type: ignore[call-overload]

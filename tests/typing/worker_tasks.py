"""Read by mypy and pyright, never run: tasks keep the types of their functions.

Every ``type: ignore`` here is an error that must be found; mypy reports one that is not needed.
"""

from __future__ import annotations

from typing import assert_type

from queue_core.worker import App, AsyncResult, Task

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

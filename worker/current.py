"""Which app is meant where none is named, and the tasks that belong to whichever that is.

``@shared_task`` is for modules that do not know the app that will run them. Such a task is known to
every app, and looks for its own only when it is used.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from queue_core import UsageError

if TYPE_CHECKING:
    from queue_core.worker.app import App
    from queue_core.worker.task import Task

shared: dict[str, Task[..., Any]] = {}
"""The shared tasks of this process by name."""

_latest: list[weakref.ref[App]] = []


def make_current(app: App) -> None:
    """From now on ``app`` is meant where none is named. Making an app makes it the current one."""
    _latest[:] = [weakref.ref(app)]


def latest_app() -> App | None:
    """Return the app that was made last, or was made the current one since; None: no app is."""
    return _latest[0]() if _latest else None


def current_app() -> App:
    """Return the app that was made last, or was made the current one since.

    Raises:
        UsageError: there is none.
    """
    app = latest_app()
    if app is None:
        raise UsageError("there is no app yet; make one: App('name', broker='sqlite:///queue.db')")
    return app

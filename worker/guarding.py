"""What a worker is of no use without: if it fails, the worker ends, and says why.

A thread that dies by an exception takes nobody with it. So whatever runs on a thread of the
worker's own - the pool's, the timer's, the settler's - goes through `guarded`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

logger = logging.getLogger(__name__)

Fail = Callable[[BaseException], None]
"""How somebody is told that something failed which should not; does not block or raise."""


def unheard(error: BaseException) -> None:
    """Be told, where nobody else wants to be: it was logged."""


def guarded(call: Callable[P, object], fail: Fail) -> Callable[P, None]:
    """Return ``call`` so that it never raises: what it raises is logged and told to ``fail``."""

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except BaseException as error:
            logger.exception("thread %r of the worker failed", threading.current_thread().name)
            fail(error)

    return run

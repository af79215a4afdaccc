"""A signal ends a worker in whichever thread and at whichever moment it arrives."""

from __future__ import annotations

import subprocess
import sys

# The kernel may give a signal to any thread, and Python runs its handler in the main thread only,
# once that does something: here it waits in select, and is not interrupted.
PROGRAM = """
import signal, threading
from queue_core.worker import App
from queue_core.worker.pools.threads import SoloPool
from queue_core.worker.runner import Worker, WorkerOptions

app = App("a", broker="memory://")
worker = Worker(SoloPool(app), WorkerOptions(broker=app.broker))

def strike():
    worker.ready.wait(20)
    threading.Event().wait(0.3)  # until the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=strike, daemon=True).start()
raise SystemExit(worker.run())
"""


def test_a_signal_that_another_thread_gets_stops_the_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], timeout=20, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

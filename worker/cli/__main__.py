"""``python -m queue_core.worker.cli`` is ``queue-core``."""

from queue_core.worker.cli import main

main()

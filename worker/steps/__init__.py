"""The worker's own steps; see `queue_core.worker.runner`."""

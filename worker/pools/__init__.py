"""Where tasks run: threads of this process, or child processes. One small protocol,
`queue_core.worker.pools.base.Pool`."""

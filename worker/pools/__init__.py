"""Where tasks run: child processes, threads, or the consumer's thread. See `base.Pool`."""

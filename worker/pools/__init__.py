"""Where tasks run: child processes, threads, an event loop, or the consumer's own thread.

The protocol of a pool is `base.Pool`.
"""

"""Whatever of a worker needs its broker, as steps: connection, control, tasks, loop."""

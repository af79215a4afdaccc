"""The public names of queue_core."""

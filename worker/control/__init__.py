"""Remote control of workers: the commands that they obey, and how to give them."""

from queue_core.worker.control.registry import control_command, inspect_command

__all__ = ["control_command", "inspect_command"]

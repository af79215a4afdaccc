"""Tasks and the worker that runs them."""

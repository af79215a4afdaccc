"""Results: waiting for them where a task was sent, and delivering them where it ran."""

"""``queue-core demo``: real work on two workers, one of which is killed, and a check of every result."""

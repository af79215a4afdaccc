"""``queue-core demo``: real work, a killed worker, and a check of every result."""

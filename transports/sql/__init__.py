"""The SQL transport."""

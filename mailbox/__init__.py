"""Remote control between named nodes, on any transport."""

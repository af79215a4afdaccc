"""The same no-op task for each task library, and how its worker is started."""

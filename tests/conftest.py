"""Makes `clips` importable for every room's tests."""

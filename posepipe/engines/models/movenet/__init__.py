"""MoveNet: its card."""

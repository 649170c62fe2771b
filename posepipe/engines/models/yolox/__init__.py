"""YOLOX: its card."""

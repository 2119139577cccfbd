"""What one row may weigh."""

LIMIT = 1 << 28
"""Bytes of one row (256 MiB, ours). A longer one is refused: a file without line ends must not fill the memory."""

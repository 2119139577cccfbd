"""What stage contrast works with, in reading order: `quoting`, `pools` (answers to a request), `choosing` (pairs)."""

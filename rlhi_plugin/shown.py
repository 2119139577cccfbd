"""The text of any object: an app's own may raise even when it is only asked for its name."""

from __future__ import annotations


def shown(value: object) -> str:
    """What ``str`` makes of a value or, where that fails, the name of its type in brackets."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever an app's object raises, what was said around it is still to be logged
        return f"[{type(value).__name__}]"

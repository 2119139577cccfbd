"""Attributes that an object may lack: pydantic takes longer to say so than a turn has."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import BaseModel


def attribute_of(thing: Any, name: str) -> Any:
    """The attribute; None where there is none."""
    kind: Any = type(thing)
    if _is_at_most_its_own(kind, name):
        return thing.__dict__.get(name)
    return getattr(thing, name, None)


@lru_cache(maxsize=256)
def _is_at_most_its_own(kind: Any, name: str) -> bool:
    """Whether only an object's own dictionary may hold it: neither its class nor anything that answers for it."""
    if not issubclass(kind, BaseModel) or kind.model_config.get("extra") == "allow" or hasattr(kind, name):
        return False
    answers = getattr(kind, "__getattr__", None) is not getattr(BaseModel, "__getattr__", None)
    return not answers and name not in kind.__private_attributes__

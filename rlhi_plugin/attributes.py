"""Attributes that an object may lack: pydantic takes longer to say so than a turn has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import BaseModel


def attributes_of(thing: Any, names: tuple[str, ...]) -> Sequence[Any]:
    """The attributes of these names; None for each that there is not."""
    kind: Any = type(thing)
    if _are_at_most_its_own(kind, names):
        return list(map(thing.__dict__.get, names))
    return [getattr(thing, name, None) for name in names]


@lru_cache(maxsize=256)
def _are_at_most_its_own(kind: Any, names: tuple[str, ...]) -> bool:
    """Whether only an object's own dictionary may hold them: neither its class nor anything that answers for it."""
    if not issubclass(kind, BaseModel) or kind.model_config.get("extra") == "allow":
        return False
    if getattr(kind, "__getattr__", None) is not getattr(BaseModel, "__getattr__", None):
        return False
    return not any(hasattr(kind, name) or name in kind.__private_attributes__ for name in names)

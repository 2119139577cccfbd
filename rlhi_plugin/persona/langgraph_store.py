"""Personas in an app's own LangGraph store, beside whatever else it remembers there.

Works with any `BaseStore`: in memory, SQLite, PostgreSQL. Nothing is put into a vector index: a persona's text would
otherwise be sent to the app's embedding model.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.store.base import BaseStore, GetOp, Item, Op, PutOp
from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.records import Persona

_NUMBER, _PERSONA = "number", "persona"


class LangGraphPersonaStore:
    """A `PersonaStore` on a LangGraph store, with the same operations for coroutines.

    The current persona of a user is the item `user_id` of the namespace; every earlier version is kept in the namespace
    ``(*namespace, "versions")`` as ``user_id:number``. LangGraph's asynchronous stores refuse synchronous calls from
    their own event loop: use `aget_persona` there, or call from another thread, as the middleware does.

    Args:
        store: The app's.
        namespace: Where personas are; labels without a full stop, not empty.

    Raises:
        ConfigError: `store` is no LangGraph store, or the namespace is not allowed there.
    """

    def __init__(self, store: BaseStore, namespace: Sequence[str] = ("rlhi", "personas")) -> None:
        if not isinstance(store, BaseStore):
            raise ConfigError(f"{type(store).__name__} is no LangGraph store. Pass a langgraph.store.base.BaseStore.")
        labels = (namespace,) if isinstance(namespace, str) else tuple(namespace)
        if not labels or not all(label and "." not in label for label in labels) or labels[0] == "langgraph":
            raise ConfigError(
                f"namespace={namespace!r} is not allowed. Give labels without a full stop, the first of them not "
                "'langgraph'."
            )
        self._store = store
        self._namespace = labels
        self._versions = (*labels, "versions")
        self._lock = threading.Lock()

    def get_persona(self, user_id: str) -> Persona | None:
        """See `PersonaStore.get_persona`."""
        return _read(self._call([self._get(user_id)])[0])

    async def aget_persona(self, user_id: str) -> Persona | None:
        """The same, for coroutines.

        Raises:
            StoreError: the store cannot be read.
        """
        return _read((await self._acall([self._get(user_id)]))[0])

    def put_persona(self, persona: Persona) -> None:
        """See `PersonaStore.put_persona`. Earlier versions are kept; putting the current one again adds none."""
        # Two threads of one process must not give two versions the same number.
        with self._lock:
            operations = self._put(persona, self._call([self._get(persona.user_id)])[0])
            if operations:
                self._call(operations)

    async def aput_persona(self, persona: Persona) -> None:
        """The same, for coroutines. Between tasks that write one user's persona at once, the last one wins.

        Raises:
            StoreError: the store cannot be written.
        """
        operations = self._put(persona, (await self._acall([self._get(persona.user_id)]))[0])
        if operations:
            await self._acall(operations)

    def versions(self, user_id: str) -> list[Persona]:
        """Every persona of a user that was ever put, oldest first.

        Raises:
            StoreError: the store cannot be read.
        """
        current = self._call([self._get(user_id)])[0]
        if current is None:
            return []
        keys = [self._version_key(user_id, number) for number in range(_number(current))]
        earlier = self._call([GetOp(self._versions, key) for key in keys]) if keys else []
        return [persona for item in (*earlier, current) if (persona := _read(item)) is not None]

    def forget(self, user_id: str) -> None:
        """Delete everything about a user, earlier versions included.

        Raises:
            StoreError: the store cannot be written.
        """
        with self._lock:
            current = self._call([self._get(user_id)])[0]
            if current is None:
                return
            keys = [self._version_key(user_id, number) for number in range(_number(current))]
            gone: list[Op] = [PutOp(self._versions, key, None) for key in keys]
            self._call([*gone, PutOp(self._namespace, user_id, None)])

    def _get(self, user_id: str) -> Op:
        return GetOp(self._namespace, user_id)

    def _put(self, persona: Persona, current: Item | None) -> list[Op]:
        body = persona.model_dump(mode="json", exclude_defaults=True)
        if current is None:
            return [PutOp(self._namespace, persona.user_id, {_NUMBER: 0, _PERSONA: body}, index=False)]
        if current.value.get(_PERSONA) == body:
            return []
        number = _number(current)
        kept = PutOp(self._versions, self._version_key(persona.user_id, number), dict(current.value), index=False)
        return [kept, PutOp(self._namespace, persona.user_id, {_NUMBER: number + 1, _PERSONA: body}, index=False)]

    @staticmethod
    def _version_key(user_id: str, number: int) -> str:
        return f"{user_id}:{number:08d}"

    def _call(self, operations: Sequence[Op]) -> list[Any]:
        try:
            return self._store.batch(operations)
        except Exception as error:
            raise _store_error(error) from error

    async def _acall(self, operations: Sequence[Op]) -> list[Any]:
        try:
            return await self._store.abatch(operations)
        except Exception as error:
            raise _store_error(error) from error


def _number(item: Item) -> int:
    return int(item.value.get(_NUMBER, 0))


def _read(item: Item | None) -> Persona | None:
    if item is None:
        return None
    body = item.value.get(_PERSONA) if isinstance(item.value, Mapping) else None
    try:
        return Persona.model_validate(body, strict=False)
    except ValidationError as error:
        raise StoreError(
            f"the persona of {item.key} is damaged: {error}. Build it again: rlhi persona build"
        ) from error


def _store_error(error: Exception) -> StoreError:
    return StoreError(
        f"the LangGraph store failed: {type(error).__name__}: {error}. "
        "Check that it is set up (store.setup()) and open."
    )

"""One HTTP client for a whole annotation. ``alpaca_eval`` would make one for every prompt, and close none of them.

It finds its clients through a file that names a class and its arguments; ours names `shared` and an entry here, so the
key is in memory only. Each choice of a reply that it returns holds the model that the reply named.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rlhi_eval_harness.alpaca.answered_by import IN_CHOICE
from rlhi_eval_harness.alpaca.package import alpaca_eval_module

_OPEN: dict[str, Any] = {}


def shared(entry: str) -> Any:
    """The client that `shared_client` opened under this name; called by ``alpaca_eval``."""
    return _OPEN[entry]


class _Naming:
    """A client's completions, whose choices carry what their reply says of itself."""

    def __init__(self, completions: Any) -> None:
        self._completions = completions

    def create(self, **request: Any) -> Any:
        """Ask, as the client does."""
        reply = self._completions.create(**request)
        for choice in reply.choices:
            setattr(choice, IN_CHOICE, reply.model or None)
        return reply


@contextmanager
def shared_client(folder: Path, *, api_key: str, base_url: str | None) -> Iterator[Path]:
    """Open a client, and write the file from which ``alpaca_eval`` finds it; both are gone afterwards.

    Args:
        folder: Where the file goes.
        api_key: Of the endpoint.
        base_url: Its address; the provider's own where None.
    """
    import yaml

    entry = uuid.uuid4().hex
    path = folder / f"client-{entry}.yaml"
    client = alpaca_eval_module("decoders.openai").OpenAI(api_key=api_key, base_url=base_url)
    _OPEN[entry] = SimpleNamespace(
        chat=SimpleNamespace(completions=_Naming(client.chat.completions)), completions=_Naming(client.completions)
    )
    try:
        path.write_text(yaml.safe_dump({"default": [{"client_class": f"{__name__}.shared", "entry": entry}]}), "utf-8")
        yield path
    finally:
        del _OPEN[entry]
        client.close()
        path.unlink(missing_ok=True)

"""One HTTP client for a whole annotation. ``alpaca_eval`` would make one for every prompt, and close none of them.

It finds its clients through a file that names a class and its arguments; ours names `shared` and an entry here, so the
key is in memory only.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhi_eval_harness.alpaca.package import alpaca_eval_module

_OPEN: dict[str, Any] = {}


def shared(entry: str) -> Any:
    """The client that `shared_client` opened under this name; called by ``alpaca_eval``."""
    return _OPEN[entry]


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
    _OPEN[entry] = client
    try:
        path.write_text(yaml.safe_dump({"default": [{"client_class": f"{__name__}.shared", "entry": entry}]}), "utf-8")
        yield path
    finally:
        del _OPEN[entry]
        client.close()
        path.unlink(missing_ok=True)

"""A client around a client: it has the same name, offers the same, and does something of its own besides."""

from __future__ import annotations

from rlhi_plugin.chat import Capabilities, ChatClient


class AroundClient:
    """What all wrappers of `rlhi_plugin.calls.stack` have in common; each adds its own `complete`.

    Args:
        client: The client inside.
    """

    def __init__(self, client: ChatClient) -> None:
        self._client = client

    @property
    def model(self) -> str:
        """That of the client inside."""
        return self._client.model

    @property
    def capabilities(self) -> Capabilities:
        """Those of the client inside."""
        return self._client.capabilities

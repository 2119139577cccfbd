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

    async def aclose(self) -> None:
        """Close the connections of the client inside, where it has any."""
        aclose = getattr(self._client, "aclose", None)
        if aclose is not None:
            await aclose()

"""A model provider on this machine that speaks OpenAI's protocol and answers, or fails, as its script says.

For tests and examples that need a real HTTP server, real streams and real faults, and neither a key nor a network:

    with FakeProvider(["Hello!", rate_limited(retry_after_s=0.1), Answer("Bonjour !")]) as provider:
        client = OpenAI(base_url=provider.base_url, api_key="any")
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert provider.requests[0].last_user_text == "hi"
"""

from rlhi_plugin.fake_provider.behaviours import (
    Answer,
    Behaviour,
    ByContent,
    CutStream,
    Disconnect,
    Hang,
    HTTPFault,
    InvalidBody,
    ProviderRequest,
    RateLimit,
    Script,
    ToolCall,
    digest_of_body,
    echo,
    rate_limited,
)
from rlhi_plugin.fake_provider.server import FakeProvider

__all__ = [
    "Answer",
    "Behaviour",
    "ByContent",
    "CutStream",
    "Disconnect",
    "FakeProvider",
    "HTTPFault",
    "Hang",
    "InvalidBody",
    "ProviderRequest",
    "RateLimit",
    "Script",
    "ToolCall",
    "digest_of_body",
    "echo",
    "rate_limited",
]

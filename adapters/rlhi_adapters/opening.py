"""A model by one line of text, also one whose weights are loaded here: ``local:NAME`` and ``vllm:NAME``.

What is served elsewhere is `rlhi_plugin.calls.opening`'s.
"""

from __future__ import annotations

from rlhi_plugin.calls.opening import open_hosted, parse_spec
from rlhi_plugin.calls.options import DEFAULT, CallOptions
from rlhi_plugin.chat import ChatClient


def open_client(spec: str, options: CallOptions = DEFAULT) -> ChatClient:
    """A bare client; `rlhi_plugin.calls.stack.equip` puts the rest around it.

    Args:
        spec: ``openai/gpt-4o``, ``openai:model@http://127.0.0.1:8000/v1``, ``local:smollm2-135m-instruct``,
            ``vllm:meta-llama/Llama-3.1-8B-Instruct``.
        options: How hosted models are called.

    Raises:
        ConfigError: the line cannot be read.
        MissingExtraError: what it needs is not installed.
        UserError: the weights cannot be found.
    """
    parsed = parse_spec(spec)
    if parsed.client == "local":
        from rlhi_adapters.local_client import LocalClient
        from rlhi_adapters.local_model import LocalModel

        return LocalClient(LocalModel.load(parsed.model))
    if parsed.client == "vllm":
        from rlhi_adapters.vllm_client import VLLMClient

        return VLLMClient(parsed.model)
    return open_hosted(parsed, options)

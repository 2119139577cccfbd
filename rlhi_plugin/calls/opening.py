"""A model by one line of text: which client, which model, at which address.

::

    openai/gpt-4o                                       LiteLLM, as LiteLLM writes it
    openai/my-model@http://127.0.0.1:8000/v1            LiteLLM, at an address of one's own
    openai:my-model@http://127.0.0.1:8000/v1            the openai library, any compatible server

`rlhi_adapters.opening` adds ``local:`` and ``vllm:``, which load weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhi_plugin.calls.options import DEFAULT, CallOptions
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.errors import ConfigError

CLIENTS = ("litellm", "openai", "local", "vllm")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A parsed line.

    Attributes:
        client: One of `CLIENTS`.
        model: The model's name, as that client knows it.
        address: Where it is served; None is the client's own.
    """

    client: str
    model: str
    address: str | None = None


def parse_spec(text: str) -> ModelSpec:
    """Read ``[CLIENT:]MODEL[@http://ADDRESS]``; without a client it is LiteLLM's.

    Raises:
        ConfigError: there is no model in it.
    """
    name, _, rest = text.partition(":")
    client, model = (name, rest) if name in CLIENTS else ("litellm", text)
    address = None
    for scheme in ("@http://", "@https://"):
        if scheme in model:
            model, _, host = model.partition(scheme)
            address = scheme[1:] + host
    if not model:
        raise ConfigError(f"{text!r} names no model. Write it as provider/model, such as openai/gpt-4o.")
    return ModelSpec(client, model, address)


def open_hosted(spec: str | ModelSpec, options: CallOptions = DEFAULT) -> ChatClient:
    """A bare client of a hosted model; `rlhi_plugin.calls.stack.equip` puts the rest around it.

    Raises:
        ConfigError: it is not a hosted model, or the line cannot be read.
        MissingExtraError: the vendor's library is not installed.
    """
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    if parsed.client == "litellm":
        from rlhi_plugin.litellm_client import LiteLLMClient

        return LiteLLMClient(
            parsed.model,
            api_base=parsed.address,
            timeout_s=options.timeout_s,
            max_concurrency=options.max_concurrency,
            price=options.price,
        )
    if parsed.client == "openai":
        from rlhi_plugin.calls.openai_client import OpenAIChatClient

        price = options.price
        if price is None and parsed.address is None and options.max_cost_usd is not None:
            from rlhi_plugin.litellm_client import litellm_price

            price = litellm_price(parsed.model)
        return OpenAIChatClient(parsed.model, base_url=parsed.address, timeout_s=options.timeout_s, price=price)
    raise ConfigError(
        f"{parsed.client}:{parsed.model} runs in this process, which is not possible here. Use a served one."
    )

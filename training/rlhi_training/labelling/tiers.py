"""The shipped labellers by name: ``fast``, ``encoder``, ``llm``, ``cascade``; any other name is another package's."""

from __future__ import annotations

from rlhi_adapters.opening import open_client
from rlhi_plugin.calls.stack import equip
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Labeller, load_labeller
from rlhi_plugin.labelling.llm import LLMLabeller
from rlhi_training.labelling.cascade import CascadeLabeller
from rlhi_training.labelling.embedded import EmbeddedLabeller
from rlhi_training.labelling.encoder import EncoderLabeller
from rlhi_training.labelling.fast import FastLabeller

TIERS = ("fast", "encoder", "llm", "cascade")
ASKING = ("llm", "cascade")
"""Those that can ask a language model."""


def make_labeller(
    name: str, *, llm: str | None = None, client: ChatClient | None = None, votes: int = 1, workers: int = 1
) -> Labeller:
    """Make a labeller.

    Args:
        name: One of `TIERS`, ``embedded`` (the best tier without a language model), or an entry point of
            ``rlhi.labellers``.
        llm: Model for the tiers that ask one (`rlhi_adapters.opening`): ``openai/gpt-4o``, ``local:FOLDER``.
        client: Instead of `llm`, what those tiers ask.
        votes: How often such a model is asked about each follow-up.
        workers: Processes of the fast tier.

    Raises:
        ConfigError: there is no such labeller, or it does not go with the other arguments.
        MissingExtraError: what it needs is not installed.
    """
    asked = llm is not None or client is not None
    if asked and name in {"fast", "encoder", "embedded"}:
        raise ConfigError(f"the labeller {name!r} asks no model. Leave --llm out, or use: --labeller cascade")
    if votes != 1 and (name not in ASKING or not asked):
        raise ConfigError("only a labeller that asks a model can vote. Use: --labeller llm --llm openai/gpt-4o")
    if name == "fast":
        return FastLabeller(workers=workers)
    if name == "encoder":
        return EncoderLabeller()
    if name == "embedded":
        return EmbeddedLabeller()
    if name == "llm":
        return _asking(llm, client, votes)
    if name == "cascade":
        fast = FastLabeller(workers=workers)
        last = [_asking(llm, client, votes)] if asked else []
        return CascadeLabeller(tiers=[fast, EncoderLabeller(fast=fast), *last])
    return load_labeller(name, llm=llm)


def _asking(llm: str | None, client: ChatClient | None, votes: int) -> LLMLabeller:
    if llm is not None and client is None:
        # Weights may be loaded here, which the live half cannot do.
        client, llm = equip(open_client(llm)), None
    return LLMLabeller(client, llm=llm, votes=votes)

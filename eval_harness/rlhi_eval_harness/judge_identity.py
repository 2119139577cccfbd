"""Which model a judge's name stands for: one fixed state of weights, or whatever its owner serves under it today.

A report whose judge is an alias cannot be made again: ``gpt-4o`` was several models, and so was every ``latest``. What
counts as pinned is what nobody can move without breaking a promise: a digest, a revision, or a date or version that the
vendor puts into the name of a snapshot. In doubt a name is an alias: a judge wrongly called pinned would be believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from rlhi_plugin import terminal
from rlhi_plugin.calls.opening import CLIENTS
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Record

PinKind = Literal["digest", "revision", "version", "alias"]

HOW_TO_PIN = (
    "Name a snapshot by its date or version (openai/gpt-4o-2024-08-06), weights by their revision "
    "(openai/OWNER/NAME@COMMIT@http://HOST/v1, served under that name), or judge in this process (local:FOLDER, "
    "vllm:FOLDER)"
)

_PROVIDERS = {
    "ai21", "anthropic", "azure_ai", "bedrock", "cohere", "cohere_chat", "converse", "dashscope", "deepinfra",
    "deepseek", "fireworks_ai", "gemini", "github", "google", "groq", "hosted_vllm", "huggingface", "lm_studio",
    "litellm_proxy", "mistral", "mistralai", "moonshot", "nvidia_nim", "ollama", "ollama_chat", "openai",
    "openrouter", "perplexity", "replicate", "text-completion-openai", "together_ai", "vercel_ai_gateway",
    "vertex_ai", "vllm", "watsonx", "x-ai", "xai",
}  # fmt: skip
"""Beginnings of LiteLLM's names that say who is asked, not what answers."""
_DIGEST = re.compile(r"sha256[:\-][0-9a-f]{12,64}")
_REVISION = re.compile(r"@(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}$|@[0-9a-f]{40}$")
_LATEST = re.compile(r"(?:^|[-_:@/.])latest(?:$|[-_:@/.])")
_MONTH, _DAY = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATED = re.compile(
    rf"[-@.](?:20\d\d-?{_MONTH}-?{_DAY}"  # gpt-4o-2024-08-06, claude-3-5-sonnet@20240620
    rf"|{_MONTH}-20\d\d"  # command-r-08-2024
    rf"|preview-{_MONTH}-{_DAY}"  # gemini-2.5-pro-preview-05-06
    rf"|(?!1024){_MONTH}{_DAY}"  # gpt-4-1106-preview; 1024 is a size
    rf"|2[3-9]{_MONTH})"  # mistral-large-2411
    r"(?=$|[-:@])"
)
_VERSIONED = re.compile(r"-v\d+:\d+$|^gemini-.*-0\d\d$")
"""Bedrock's ``nova-pro-v1:0``; Gemini's ``gemini-1.5-pro-002``."""


class Pin(Record):
    """Whether a judge's name means one model for good."""

    kind: PinKind
    """By what it is pinned: a digest of weights, a revision, the vendor's date or version; or ``alias``: by nothing."""
    why: str
    """In words, as the report prints it."""

    @property
    def pinned(self) -> bool:
        """Whether it is."""
        return self.kind != "alias"


class JudgeIdentity(Record):
    """Who a judge is by its name, and who answered when it was asked."""

    judge: str
    """As its client names it."""
    pin: Pin
    answered_by: dict[str, int] = Field(default_factory=dict)
    """Judgments by the model id that the replies carried, over all starts; with more than one, the judge changed."""
    unnamed: int = Field(default=0, ge=0)
    """Judgments whose reply named no model."""

    @property
    def changed(self) -> bool:
        """Whether more than one model answered under the name."""
        return len(self.answered_by) > 1

    @property
    def another(self) -> str | None:
        """The model that answered where a pinned version was asked for and another one answered."""
        asked = _without_providers(_without_client(self.judge).lower())
        for name in self.answered_by if self.pin.kind == "version" else ():
            said = _without_providers(name.lower())
            if said not in asked and asked not in said:
                return name
        return None


def pin_of(name: str) -> Pin:
    """Classify a judge's name, as LiteLLM writes it, as a client reports it, or as a folder of weights.

    A client before it (``openai:``) and an address behind it are passed over: they say where a model is asked, not
    which one.
    """
    bare = _without_client(name.strip())
    if name.startswith(("local:", "vllm:")):
        return Pin(kind="digest", why="weights in this process, whose digest is in every judgment")
    model = bare.lower()
    if _DIGEST.search(model):
        return Pin(kind="digest", why="named by the digest of its weights")
    if _LATEST.search(model):
        return Pin(kind="alias", why="`latest` is whatever is newest")
    if _REVISION.search(model):
        return Pin(kind="revision", why="named with a revision")
    if model.startswith("azure/"):
        return Pin(kind="alias", why="an Azure deployment has the name that its owner gave it")
    return _pin_of_model(_without_providers(model))


def _pin_of_model(model: str) -> Pin:
    if "/" in model:
        return Pin(kind="alias", why="a repository without a revision is whatever was pushed last")
    if _DATED.search(model):
        return Pin(kind="version", why="a dated snapshot")
    if _VERSIONED.search(model):
        return Pin(kind="version", why="a numbered version")
    if ":" in model:
        return Pin(kind="alias", why="a tag can be moved to other weights")
    return Pin(kind="alias", why="nothing in the name says which state of the model")


def identity_of(judge: str, answered_by: Iterable[str | None]) -> JudgeIdentity:
    """A judge, with the models that its replies named.

    Args:
        judge: Its name.
        answered_by: For each judgment what its reply named; None where nothing.
    """
    counts: dict[str, int] = {}
    unnamed = 0
    for each in answered_by:
        if each is None:
            unnamed += 1
        else:
            counts[each] = counts.get(each, 0) + 1
    pin = pin_of(judge)
    if not pin.pinned and counts and not unnamed and all(_DIGEST.search(each) for each in counts):
        pin = Pin(kind="digest", why="weights in this process, whose digest is in every judgment")
    return JudgeIdentity(judge=judge, pin=pin, answered_by=dict(sorted(counts.items())), unnamed=unnamed)


def refuse_aliases(judges: Iterable[tuple[str, Pin]]) -> None:
    """What ``--require-pinned-judge`` asks.

    Raises:
        ConfigError: a judge is an alias.
    """
    found = [f"{name} ({pin.why})" for name, pin in judges if not pin.pinned]
    if found:
        raise ConfigError(
            f"--require-pinned-judge: {'; '.join(found)}: an alias, behind which the model can change. {HOW_TO_PIN}."
        )


def watch(judge: str, answered_by: str | None, names: set[str]) -> None:
    """Say at once that another model answers than before: whoever pays for the rest may want to stop.

    Args:
        judge: The name that was asked.
        answered_by: What the reply named; None where nothing.
        names: The models that have answered so far; grows.
    """
    if answered_by is None or answered_by in names:
        return
    if names:
        terminal.stderr.print(
            f"warning: the judge {judge} has changed: {answered_by} answers now, and {', '.join(sorted(names))} did "
            "before. That will stand beside the numbers",
            style="yellow",
            markup=False,
            highlight=False,
        )
    names.add(answered_by)


def _without_client(name: str) -> str:
    client, _, rest = name.partition(":")
    name = rest if client in CLIENTS and rest else name
    for scheme in ("@http://", "@https://"):
        name = name.partition(scheme)[0]
    return name


def _without_providers(model: str) -> str:
    """``openrouter/openai/gpt-4o`` is ``gpt-4o``; what is left with a ``/`` is a repository."""
    first, slash, rest = model.partition("/")
    while slash and first in _PROVIDERS:
        model = rest
        first, slash, rest = model.partition("/")
    return model

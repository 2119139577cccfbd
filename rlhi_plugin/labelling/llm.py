"""A labeller that asks a language model, one call for each follow-up and vote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from rlhi_plugin.calls.concurrently import each, under_way
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ConfigError, ModelCallError, ProviderUnavailableError
from rlhi_plugin.json_reply import complete_json
from rlhi_plugin.labelling.exchange import Exchange
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage, FollowUp, FollowUpLabel, FollowUpSubtype

MAX_SHOWN = 4_000
"""Characters of each text that the model is shown: its beginning and its end (ours)."""

MAX_VOTES = 15
VOTING_TEMPERATURE = 0.7
"""Sampling temperature where several votes are asked for: the same answer again would be no vote (ours)."""

_SURE = {"high": 0.95, "medium": 0.8, "low": 0.6}
"""Probability that stands for each confidence (ours)."""


class _Reply(BaseModel):
    label: FollowUpLabel
    subtype: FollowUpSubtype | None = None
    confidence: Literal["high", "medium", "low"] = "medium"
    evidence: str | None = None


class LLMLabeller:
    """Labels follow-ups with any `ChatClient`.

    Args:
        client: What is asked.
        llm: Instead of a client, a model's name (`rlhi_plugin.calls.opening`).
        votes: How often each follow-up is asked about, 1 to 15. The commonest label wins, of equally common ones the
            one that was said with more confidence; probabilities are the mean of the votes'.

    Raises:
        ConfigError: neither or both of client and name were given, or the votes are too few or too many.
        MissingExtraError: `llm` was given and LiteLLM is not installed.
    """

    def __init__(self, client: ChatClient | None = None, *, llm: str | None = None, votes: int = 1) -> None:
        if not 1 <= votes <= MAX_VOTES:
            raise ConfigError(f"{votes} votes are not possible. Ask for 1 to {MAX_VOTES}.")
        if (client is None) == (llm is None):
            raise ConfigError("the llm labeller needs a model. Name one, as LiteLLM writes it: --llm openai/gpt-4o")
        if llm is not None:
            from rlhi_plugin.calls.opening import open_hosted
            from rlhi_plugin.calls.stack import equip

            client = equip(open_hosted(llm))
        assert client is not None  # noqa: S101 - tells the type checker what the first check has made sure
        self._client = client
        self._votes = votes
        self._prompt = load_prompt("rlhi_plugin.labelling", "follow_up")

    @property
    def name(self) -> str:
        """Model, prompt version, and the votes where there are several."""
        several = f":{self._votes}-votes" if self._votes > 1 else ""
        return f"llm:{self._client.model}:{self._prompt.version}{several}"

    @property
    def at_once(self) -> int:
        """How many follow-ups to give it at once, so that its model has always some to label."""
        return under_way(self._client)

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """See `Labeller.label`. Evidence that does not stand in the follow-up is dropped, the label kept."""
        return await each(exchanges, self._label, at_once=self.at_once)

    async def label_each(self, exchanges: Sequence[Exchange]) -> list[FollowUp | ModelCallError]:
        """See `rlhi_plugin.labelling.labeller.PatientLabeller.label_each`."""
        return await each(exchanges, self._label_or_error, at_once=self.at_once)

    async def _label_or_error(self, exchange: Exchange) -> FollowUp | ModelCallError:
        try:
            return await self._label(exchange)
        except ProviderUnavailableError:
            raise
        except ModelCallError as error:
            return error

    async def _label(self, exchange: Exchange) -> FollowUp:
        shown = {
            "request": _excerpt(exchange.request),
            "reply": _excerpt(exchange.reply),
            "follow_up": _excerpt(exchange.follow_up),
        }
        request = ChatRequest(
            messages=(
                ChatMessage(role="system", content=self._prompt.text),
                ChatMessage(role="user", content=json.dumps(shown, ensure_ascii=False)),
            ),
            max_tokens=300,
            json_schema=_Reply.model_json_schema(),
        )
        if self._votes == 1:
            replies = [await complete_json(self._client, request, _Reply)]
        else:
            asked = [
                request.model_copy(update={"temperature": VOTING_TEMPERATURE, "seed": seed})
                for seed in range(self._votes)
            ]
            replies = await each(asked, lambda one: complete_json(self._client, one, _Reply), at_once=self._votes)
        return self._elected(exchange, replies)

    def _elected(self, exchange: Exchange, replies: Sequence[_Reply]) -> FollowUp:
        tables = [_probabilities(reply) for reply in replies]
        probabilities = {label: sum(table[label] for table in tables) / len(tables) for label in FollowUpLabel}
        votes = Counter(reply.label for reply in replies)
        label = max(votes, key=lambda one: (votes[one], probabilities[one]))
        agreeing = [reply for reply in replies if reply.label is label]
        kinds = Counter(reply.subtype for reply in agreeing if reply.subtype is not None)
        quotes = [reply.evidence for reply in agreeing if reply.evidence and reply.evidence in exchange.follow_up]
        return FollowUp(
            conversation_id=exchange.conversation_id,
            turn=exchange.turn,
            message_id=exchange.message_id,
            label=label,
            subtype=kinds.most_common(1)[0][0] if kinds else None,
            probabilities=probabilities,
            evidence=quotes[0] if quotes else None,
            labeller=self.name,
        )


def _probabilities(reply: _Reply) -> dict[FollowUpLabel, float]:
    sure = _SURE[reply.confidence]
    rest = (1.0 - sure) / (len(FollowUpLabel) - 1)
    return {label: sure if label is reply.label else rest for label in FollowUpLabel}


def _excerpt(text: str) -> str:
    if len(text) <= MAX_SHOWN:
        return text
    half = MAX_SHOWN // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"

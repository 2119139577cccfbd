"""`rlhi-eval build-usereval`: from a log to a suite in a folder, once by choice and again by manifest."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhi_eval_harness.models import open_served
from rlhi_eval_harness.run_folder import write_records, write_text
from rlhi_eval_harness.usereval.rebuild import as_in, compare
from rlhi_eval_harness.usereval.records import (
    ITEMS,
    MANIFEST,
    PERSONAS,
    BuildOptions,
    Manifest,
    UserEvalItem,
    UserKey,
    key_of,
    read_manifest,
)
from rlhi_eval_harness.usereval.select import Choice, choose, items_of
from rlhi_plugin import terminal
from rlhi_plugin.errors import ArtefactError, ConfigError, RecordError
from rlhi_plugin.labelling import Labeller, exchanges, load_labeller
from rlhi_plugin.persona import ExtractivePersonaBuilder, LLMPersonaBuilder, PersonaBuilder
from rlhi_plugin.records import Conversation, FollowUp, Persona

SUITE = """\
name = "usereval"
kind = "usereval"
summary = {summary}
folder = "{{here}}"
"""


@dataclass(frozen=True)
class BuildRequest:
    """What the command line says.

    Attributes:
        log: Conversations, in any form that `rlhi_plugin.logs` reads.
        out: New folder.
        manifest: Of the suite to build again; None chooses anew.
        exclude: Logs and manifests whose users are not held out.
        labeller: Name of the labeller.
        llm: Model for the labeller ``llm`` and for the personas; None: personas quote.
        settings: ``key=value`` for `BuildOptions`.
    """

    log: Path
    out: Path
    manifest: Path | None = None
    exclude: tuple[Path, ...] = ()
    labeller: str = "embedded"
    llm: str | None = None
    settings: tuple[str, ...] = ()


@dataclass
class Built:
    """What was built: numbers for the command line."""

    counts: dict[str, int] = field(default_factory=dict)


def build(request: BuildRequest) -> Built:
    """Build a suite.

    Raises:
        ConfigError: the log or the settings are unusable, nobody has enough history, the folder is not empty, or the
            log lacks what the manifest names.
        ArtefactError: the manifest is damaged, or its personas do not come out of this log.
        ModelCallError: a labeller or persona builder that asks a model could not.
    """
    if request.out.is_dir() and any(request.out.iterdir()):
        raise ConfigError(f"{request.out} is not empty. Choose another --out.")
    frozen = read_manifest(request.manifest) if request.manifest else None
    if frozen and request.settings:
        raise ConfigError("a manifest holds its own options. Leave --set out, or build without --manifest.")
    options = frozen.options if frozen else read_options(request.settings)
    conversations, broken = _read(request.log)
    excluded = {user for path in request.exclude for user in _users_of(path)}
    choice = as_in(frozen, conversations, excluded) if frozen else choose(conversations, options, excluded)
    choice.dropped.update({"rows_that_cannot_be_read": broken} if broken else {})
    labeller = load_labeller(request.labeller, llm=request.llm if request.labeller == "llm" else None)
    builder: PersonaBuilder = ExtractivePersonaBuilder()
    if request.llm:
        builder = LLMPersonaBuilder(open_served(request.llm))
    draft = _Draft(choice, options, labeller, builder, required=set(frozen.users) if frozen else set())
    items, personas = draft.make()
    manifest = _manifest(request.log, draft, items, personas)
    if frozen:
        compare(frozen, manifest, request.log)
    if not items:
        reasons = ", ".join(f"{reason} {count}" for reason, count in choice.dropped.items()) or "the log is empty"
        raise ConfigError(
            f"nobody in {request.log} can be evaluated ({reasons}). "
            "It takes users with several conversations, each with its time: give such a log, or lower min_history."
        )
    _write(request.out, manifest, items, personas)
    return Built(_counts(manifest, items))


def read_options(settings: Sequence[str]) -> BuildOptions:
    """``key=value`` settings over the defaults.

    Raises:
        ConfigError: one of them is not allowed.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r}: write it as key=value, e.g. min_history=3")
        values[key.strip()] = value.strip()
    try:
        return BuildOptions.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        known = ", ".join(BuildOptions.model_fields)
        raise ConfigError(f"--set {'.'.join(map(str, problem['loc']))}: {problem['msg']}. Options: {known}.") from error


class _Draft:
    """Labels, personas and items of a choice."""

    def __init__(
        self,
        choice: Choice,
        options: BuildOptions,
        labeller: Labeller,
        builder: PersonaBuilder,
        *,
        required: set[str],
    ) -> None:
        self.choice = choice
        self.options = options
        self.labeller = labeller
        self.builder = builder
        self.dropped_items: Counter[str] = Counter()
        self.histories: dict[str, tuple[str, ...]] = {}
        self._required = required

    def make(self) -> tuple[list[UserEvalItem], list[Persona]]:
        """Items in the order of their users, and one persona a user."""
        labels = asyncio.run(self._label())
        items: list[UserEvalItem] = []
        personas: list[Persona] = []
        for chosen in self.choice.users:
            mine = [labels[key] for c in chosen.history for each in exchanges(c) if (key := _key(each)) in labels]
            persona = asyncio.run(self.builder.build(chosen.user, chosen.history, mine))
            if len(persona.statements) < self.options.min_statements and chosen.user not in self._required:
                self.choice.dropped["too_little_known"] += 1
                continue
            found, dropped = items_of(chosen, self.options)
            if not found:
                self.choice.dropped["no_usable_turn"] += 1
                continue
            self.dropped_items += dropped
            self.histories[chosen.user] = tuple(c.conversation_id for c in chosen.history)
            personas.append(persona)
            items += [_labelled(item, labels) for item in found]
        return items, personas

    async def _label(self) -> Mapping[tuple[str, str], FollowUp]:
        whole = [c for chosen in self.choice.users for c in (*chosen.history, *chosen.evaluated)]
        asked = [each for conversation in whole for each in exchanges(conversation)]
        with terminal.waiting(f"Labelling {len(asked)} follow-ups"):
            return {_key(each): each for each in await self.labeller.label(asked)}


def _key(each: Any) -> tuple[str, str]:
    return each.conversation_id, each.message_id


def _labelled(item: UserEvalItem, labels: Mapping[tuple[str, str], FollowUp]) -> UserEvalItem:
    if item.follow_up_id is None or (item.conversation_id, item.follow_up_id) not in labels:
        return item
    return item.model_copy(update={"label": labels[item.conversation_id, item.follow_up_id].label})


def _read(log: Path) -> tuple[list[Conversation], int]:
    """The conversations, and how many rows cannot be read."""
    from rlhi_plugin.logs import read_conversations

    rows = list(read_conversations(log))
    good = [row for row in rows if not isinstance(row, RecordError)]
    return good, len(rows) - len(good)


def _users_of(path: Path) -> Iterable[str]:
    if path.suffix == ".json":
        try:
            return read_manifest(path).users
        except ArtefactError:
            pass  # a log may be a .json file, too
    return {conversation.user_id for conversation in _read(path)[0] if conversation.user_id is not None}


def _manifest(log: Path, draft: _Draft, items: Sequence[UserEvalItem], personas: Sequence[Persona]) -> Manifest:
    return Manifest(
        log_digest=_digest(log),
        options=draft.options,
        labeller=draft.labeller.name,
        persona_builder=draft.builder.name,
        users={
            persona.user_id: UserKey(history=draft.histories[persona.user_id], persona_digest=persona.digest)
            for persona in personas
        },
        items=tuple(key_of(item) for item in items),
        dropped_users=dict(sorted(draft.choice.dropped.items())),
        dropped_items=dict(sorted(draft.dropped_items.items())),
    )


def _digest(log: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(log.rglob("*")) if log.is_dir() else [log]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _write(out: Path, manifest: Manifest, items: Sequence[UserEvalItem], personas: Sequence[Persona]) -> None:
    """The suite's file comes last: a folder without it is not a suite."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    write_records(out / ITEMS, items)
    write_records(out / PERSONAS, personas)
    summary = f"UserEval of {len(personas)} held-out users and {len(items)} turns, manifest {manifest.digest[:12]}"
    write_text(out / "suite.toml", SUITE.format(summary=json.dumps(summary)))


def _counts(manifest: Manifest, items: Sequence[UserEvalItem]) -> dict[str, int]:
    return {
        "held-out users": len(manifest.users),
        "initial turns": sum(item.turn == 0 for item in items),
        "follow-up turns": sum(item.turn > 0 for item in items),
        "turns with a real follow-up": sum(item.follow_up is not None for item in items),
        **{f"dropped: {reason.replace('_', ' ')}": count for reason, count in manifest.dropped_users.items()},
        **{f"dropped turns: {reason.replace('_', ' ')}": count for reason, count in manifest.dropped_items.items()},
    }

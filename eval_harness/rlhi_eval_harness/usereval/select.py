"""Chooses held-out users, their history, and the turns that they are evaluated on. Conversations in, choice out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rlhi_eval_harness.usereval.records import BuildOptions, UserEvalItem
from rlhi_plugin.records import Conversation, Message


@dataclass
class Chosen:
    """One user: what the persona may be made from, and what is evaluated."""

    user: str
    history: list[Conversation]
    evaluated: list[Conversation]


@dataclass
class Choice:
    """All users, and who was left out for which reason."""

    users: list[Chosen] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def choose(conversations: Iterable[Conversation], options: BuildOptions, excluded: Collection[str] = ()) -> Choice:
    """Users with enough history, and their last conversations.

    Args:
        conversations: A log.
        options: How much is enough.
        excluded: Users who must not be evaluated, for instance because training saw them.
    """
    choice, by_user = Choice(), dict[str, list[Conversation]]()
    for conversation in conversations:
        if conversation.user_id is None:
            choice.dropped["anonymous_conversations"] += 1
        elif options.language is None or conversation.language in {None, options.language}:
            by_user.setdefault(conversation.user_id, []).append(conversation)
        else:
            choice.dropped["conversations_in_another_language"] += 1
    for user in sorted(by_user):
        found = "excluded" if user in excluded else _split(user, by_user[user], options)
        if isinstance(found, str):
            choice.dropped[found] += 1
        else:
            choice.users.append(found)
    if options.max_users is not None and len(choice.users) > options.max_users:
        kept = sorted(random.Random(options.seed).sample(range(len(choice.users)), options.max_users))
        choice.dropped["not_drawn"] += len(choice.users) - len(kept)
        choice.users = [choice.users[place] for place in kept]
    return choice


def begin(conversation: Conversation) -> datetime | None:
    """When it began, as far as the log says."""
    times = [message.created_at for message in conversation.messages if message.created_at is not None]
    return min([*times, *([conversation.started_at] if conversation.started_at else [])], default=None)


def end(conversation: Conversation) -> datetime | None:
    """When its last message was written, as far as the log says."""
    times = [message.created_at for message in conversation.messages if message.created_at is not None]
    return max([*times, *([conversation.started_at] if conversation.started_at else [])], default=None)


def _split(user: str, conversations: Sequence[Conversation], options: BuildOptions) -> Chosen | str:
    """History and evaluated conversations, or the reason why there are none."""
    timed = [(start, conversation) for conversation in conversations if (start := begin(conversation)) is not None]
    if len(timed) < len(conversations):
        return "users_without_times"
    if len(timed) < options.min_history + options.conversations:
        return "too_few_conversations"
    timed.sort(key=lambda pair: (pair[0], pair[1].conversation_id))
    evaluated = timed[-options.conversations :]
    first = evaluated[0][0]
    # A conversation that was still going on then could tell the persona what is to be evaluated.
    history = [each for _, each in timed[: -options.conversations] if (last := end(each)) is not None and last < first]
    if len(history) < options.min_history:
        return "too_little_history_before"
    return Chosen(user, history, [conversation for _, conversation in evaluated])


def items_of(chosen: Chosen, options: BuildOptions) -> tuple[list[UserEvalItem], Counter[str]]:
    """The turns of a user's evaluated conversations; labels are added later. Second: how many were dropped, and why."""
    found: list[UserEvalItem] = []
    dropped: Counter[str] = Counter()
    for conversation in chosen.evaluated:
        talk = [message for message in conversation.messages if message.role in {"user", "assistant"}]
        places = [place for place, message in enumerate(talk) if message.role == "user"]
        dropped["beyond_max_turns"] += max(0, len(places) - options.max_turns)
        for turn, place in enumerate(places[: options.max_turns]):
            reason = _unusable(conversation, talk, place, options)
            if reason:
                dropped[reason] += 1
            else:
                found.append(_item(f"{chosen.user}/{len(found):02d}", conversation, talk, place, turn))
    return found, +dropped


def _unusable(conversation: Conversation, talk: Sequence[Message], place: int, options: BuildOptions) -> str | None:
    before = talk[: place + 1]
    if conversation.toxic:
        return "toxic_conversation"
    if not talk[place].content.strip():
        return "empty_request"
    if any(message.role != ("user" if i % 2 == 0 else "assistant") for i, message in enumerate(before)):
        return "roles_do_not_alternate"
    if sum(len(message.content) for message in before) > options.max_characters:
        return "too_long"
    return None


def _item(item_id: str, conversation: Conversation, talk: Sequence[Message], place: int, turn: int) -> UserEvalItem:
    after = talk[place + 1 : place + 3]
    reply = after[0] if after and after[0].role == "assistant" else None
    follow_up = after[1] if reply is not None and len(after) > 1 and after[1].role == "user" else None
    return UserEvalItem(
        item_id=item_id,
        user=item_id.rpartition("/")[0],
        conversation_id=conversation.conversation_id,
        message_id=talk[place].id,
        turn=turn,
        history=tuple(message.as_chat() for message in talk[:place]),
        request=talk[place].content,
        logged_reply=reply.content if reply and reply.content.strip() else None,
        follow_up_id=follow_up.id if follow_up else None,
        follow_up=follow_up.content if follow_up and follow_up.content.strip() else None,
    )

"""The clients around a client: retries, cache and journal, limits, budget; each alone, and all together."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

import pytest

from rlhi_plugin.calls.budget import Budget, BudgetedClient
from rlhi_plugin.calls.concurrently import each, under_way
from rlhi_plugin.calls.journal import CallJournal, call_digest
from rlhi_plugin.calls.options import CallOptions
from rlhi_plugin.calls.rate_limit import RateLimitedClient
from rlhi_plugin.calls.retrying import RetryingClient
from rlhi_plugin.calls.stack import equip
from rlhi_plugin.chat import Capabilities, ChatReply, ChatRequest, Price
from rlhi_plugin.errors import (
    ArtefactError,
    BudgetReachedError,
    ConfigError,
    InvalidReplyError,
    ModelCallError,
    ProviderSetupError,
    ProviderUnavailableError,
    TransientCallError,
)
from rlhi_plugin.records import ChatMessage

PRICE = Price(prompt_token=0.0, completion_token=0.01)
FAST = CallOptions(first_wait_s=0.001, max_wait_s=0.3, attempts=3)
SCHEMA = {"type": "object", "required": ["score"]}


def request(text: str = "hi", **more) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), **{"max_tokens": 10} | more)


class Remote:
    """A provider without its network: each call does what comes next, or answers with what was asked."""

    model = "remote"

    def __init__(self, *script: Exception | str, delay_s: float = 0.0, used: int = 4) -> None:
        self.script = list(script)
        self.delay_s = delay_s
        self.used = used
        self.asked: list[ChatRequest] = []
        self.at_once = self.peak = 0
        self.capabilities = Capabilities(json_schema="asked", many=True, price=PRICE)

    async def complete(self, asked: ChatRequest) -> tuple[ChatReply, ...]:
        self.asked.append(asked)
        self.at_once += 1
        self.peak = max(self.peak, self.at_once)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.at_once -= 1
        following = self.script.pop(0) if self.script else asked.messages[-1].content
        if isinstance(following, Exception):
            raise following
        return (ChatReply(text=following, prompt_tokens=1, completion_tokens=self.used, cost_usd=0.01 * self.used),)


@pytest.fixture
def journal(tmp_path):
    with CallJournal(tmp_path / "calls.db") as opened:
        yield opened


# Retries


async def test_what_passes_is_tried_again_and_nothing_else() -> None:
    remote = Remote(TransientCallError("a"), TransientCallError("b"), "done")
    assert (await RetryingClient(remote, FAST).complete(request()))[0].text == "done"
    assert len(remote.asked) == 3
    for error in (ModelCallError("x"), ProviderSetupError("x"), BudgetReachedError("x"), ConfigError("x")):
        remote = Remote(error)
        with pytest.raises(type(error)):
            await RetryingClient(remote, FAST).complete(request())
        assert len(remote.asked) == 1


async def test_attempts_end_and_an_address_without_anybody_stops_everything() -> None:
    remote = Remote(*[TransientCallError("busy")] * 9)
    with pytest.raises(TransientCallError, match="busy"):
        await RetryingClient(remote, FAST).complete(request())
    assert len(remote.asked) == 3
    remote = Remote(*[TransientCallError("nobody.", unreachable=True)] * 9)
    with pytest.raises(ProviderUnavailableError, match="run the same command again"):
        await RetryingClient(remote, FAST).complete(request())


async def test_retry_after_holds_back_every_call() -> None:
    remote = Remote(TransientCallError("wait", retry_after_s=0.2))
    client = RetryingClient(remote, FAST)
    started = time.monotonic()
    first = asyncio.create_task(client.complete(request("a")))
    await asyncio.sleep(0.02)
    await client.complete(request("b"))
    assert time.monotonic() - started >= 0.19
    await first
    assert len(remote.asked) == 3
    remote = Remote(TransientCallError("wait", retry_after_s=3_600.0))
    started = time.monotonic()
    await RetryingClient(remote, FAST).complete(request())
    assert time.monotonic() - started < 2, "no wait is longer than max_wait_s"


async def test_a_wrong_answer_is_asked_for_anew_in_another_way() -> None:
    wrong = InvalidReplyError("no", text="no", replies=(ChatReply(text="no"),))
    remote = Remote(wrong, '{"score": 1}')
    await RetryingClient(remote, FAST).complete(request(json_schema=SCHEMA, seed=5))
    first, second = remote.asked
    assert (first.seed, first.temperature) == (5, 0.0)
    assert second.seed != 5
    assert second.temperature == 0.5
    with pytest.raises(InvalidReplyError):
        await RetryingClient(Remote(wrong, wrong, wrong), FAST).complete(request(json_schema=SCHEMA))


# Journal and cache


async def test_an_answer_is_asked_for_once_in_this_process_and_the_next(tmp_path) -> None:
    remote = Remote(used=3)
    with CallJournal(tmp_path / "j.db") as journal:
        client = equip(remote, FAST, journal=journal)
        answers = await asyncio.gather(
            *(client.complete(request("a")) for _ in range(5)), client.complete(request("b"))
        )
    with CallJournal(tmp_path / "j.db") as journal:
        client = equip(remote, FAST, journal=journal)
        assert await client.complete(request("a")) == answers[0]
        (use,) = journal.usage()
    assert len(remote.asked) == 2
    assert (use.answered, use.attempts, use.completion_tokens, use.maybe_twice) == (2, 2, 6, 0)
    assert use.cost_usd == pytest.approx(0.06)


async def test_every_part_of_a_request_counts(journal) -> None:
    remote = Remote()
    client = equip(remote, FAST, journal=journal)
    others = (
        request("b"),
        request(n=2),
        request(temperature=0.5),
        request(max_tokens=11),
        request(seed=1),
        request(seed=2),
        request(json_schema={"type": "integer"}),
    )
    assert len({call_digest("m", asked) for asked in (request(), *others)}) == len(others) + 1
    assert call_digest("m", request()) != call_digest("n", request())
    remote.script = ["a", "b", "c", "d", "e", "f", "7"]
    for asked in others:
        await client.complete(asked)
    assert len(remote.asked) == len(others)


async def test_a_wrong_answer_was_paid_for_and_is_not_bought_again(tmp_path) -> None:
    def remote() -> Remote:
        wrong = InvalidReplyError("no", text="prose", replies=(ChatReply(text="prose", completion_tokens=5),))
        return Remote(wrong, '{"score": 1}')

    with CallJournal(tmp_path / "j.db") as journal:
        first = remote()
        answer = await equip(first, FAST, journal=journal).complete(request(json_schema=SCHEMA))
        assert len(first.asked) == 2
    with CallJournal(tmp_path / "j.db") as journal:
        second = remote()
        assert await equip(second, FAST, journal=journal).complete(request(json_schema=SCHEMA)) == answer
    assert second.asked == []


async def test_a_call_that_nobody_knows_the_end_of_is_counted(tmp_path) -> None:
    with CallJournal(tmp_path / "j.db") as journal:
        await journal.begin(call_digest("remote", request("a")), "remote", remote=True)  # and then the process ended
        await journal.begin(call_digest("remote", request("local")), "local", remote=False)
    with CallJournal(tmp_path / "j.db") as journal:
        assert journal.resumed == 2
        client = equip(Remote(TransientCallError("late", maybe_paid=True)), FAST, journal=journal)
        await client.complete(request("b"))
        assert [(u.model, u.maybe_twice) for u in journal.usage()] == [("remote", 1), ("local", 0)]
        await client.complete(request("a"))
        assert journal.usage()[0].maybe_twice == 2
        refused = equip(Remote(TransientCallError("429")), FAST, journal=journal)
        await refused.complete(request("c"))
        assert journal.usage()[0].maybe_twice == 2, "a provider that says no is not paid"


async def test_a_cancelled_caller_does_not_lose_what_is_on_its_way(journal) -> None:
    remote = Remote(delay_s=0.1)
    client = equip(remote, FAST, journal=journal)
    waiting = asyncio.create_task(client.complete(request("a")))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert journal.in_flight == 1
    await journal.land()
    assert journal.in_flight == 0
    await client.complete(request("a"))
    assert len(remote.asked) == 1


async def test_a_call_in_this_process_is_not_waited_for(journal) -> None:
    local = Remote(delay_s=5.0)
    local.capabilities = Capabilities(remote=False)
    waiting = asyncio.create_task(equip(local, FAST, journal=journal).complete(request("a")))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert journal.in_flight == 0


async def test_many_calls_at_once_are_all_kept(journal) -> None:
    client = equip(Remote(), CallOptions(max_concurrency=500), journal=journal)
    await each([request(str(i)) for i in range(2_000)], client.complete, at_once=500)
    assert journal.usage()[0].answered == 2_000


def test_a_file_that_is_no_journal_says_what_to_do(tmp_path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(ArtefactError, match="Move it away"):
        CallJournal(path)
    with CallJournal(tmp_path / "new.db"):
        pass
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("pragma user_version=99")
    connection.close()
    with pytest.raises(ArtefactError, match="later version"):
        CallJournal(tmp_path / "new.db")


def test_a_place_without_room_or_rights_is_no_damaged_journal(tmp_path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.db").mkdir()
    for place in (tmp_path / "file" / "j.db", tmp_path / "folder.db"):
        with pytest.raises(ArtefactError, match="Make room or rights there"):
            CallJournal(place)


async def test_a_disk_that_is_full_is_an_error_and_not_a_loss(tmp_path) -> None:
    with CallJournal(tmp_path / "j.db") as journal:
        client = equip(Remote(), FAST, journal=journal)
        await client.complete(request("a"))
        await journal._write(lambda db: db.execute("pragma max_page_count=1").fetchone())
        with pytest.raises(ArtefactError, match="Make room"):
            await client.complete(request("b" * 100_000))
    with CallJournal(tmp_path / "j.db") as journal:
        assert journal.replies(call_digest("remote", request("a"))) is not None


class OneACall(Remote):
    """A provider that knows no `n`; each answer names its seed."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__(delay_s=0.02)
        self.fails_at = fails_at
        self.capabilities = Capabilities(many=False, price=PRICE)

    async def complete(self, asked: ChatRequest) -> tuple[ChatReply, ...]:
        (reply,) = await super().complete(asked)
        if asked.seed == self.fails_at:
            raise ModelCallError("refused")
        return (reply.model_copy(update={"text": f"reply {asked.seed}"}),)


async def test_replies_that_are_calls_of_their_own_are_paid_for_once_each(tmp_path) -> None:
    failing = OneACall(fails_at=9)
    with CallJournal(tmp_path / "j.db") as journal:
        with pytest.raises(ModelCallError):
            await equip(failing, FAST, journal=journal).complete(request(n=4, seed=7))
        await journal.land()
    assert {(asked.n, asked.seed) for asked in failing.asked} == {(1, 7), (1, 8), (1, 9), (1, 10)}
    later = OneACall()
    with CallJournal(tmp_path / "j.db") as journal:
        replies = await equip(later, FAST, journal=journal).complete(request(n=4, seed=7))
        assert journal.usage()[0].answered == 4
    assert [reply.text for reply in replies] == [f"reply {seed}" for seed in (7, 8, 9, 10)]
    assert [asked.seed for asked in later.asked] == [9]


class SomeACall(Remote):
    """A provider that gives so many replies a call, whatever is asked for; each names its seed and place."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    async def complete(self, asked: ChatRequest) -> tuple[ChatReply, ...]:
        (reply,) = await super().complete(asked)
        return tuple(
            reply.model_copy(update={"text": f"reply {(asked.seed or 0) + place}"})
            for place in range(min(self.most, asked.n))
        )


@pytest.mark.parametrize(
    ("most", "calls"),
    [(9, [(4, 7)]), (3, [(4, 7), (1, 10)]), (2, [(4, 7), (2, 9)]), (1, [(4, 7), (1, 8), (1, 9), (1, 10)])],
)
async def test_replies_that_are_missing_are_asked_for(journal, most, calls) -> None:
    remote = SomeACall(most)
    replies = await equip(remote, FAST, journal=journal).complete(request(n=4, seed=7))
    assert [reply.text for reply in replies] == [f"reply {seed}" for seed in (7, 8, 9, 10)]
    assert sorted((asked.n, asked.seed) for asked in remote.asked) == sorted(calls)
    again = SomeACall(most)
    assert await equip(again, FAST, journal=journal).complete(request(n=4, seed=7)) == replies
    assert not again.asked


# Limits


async def test_calls_in_flight_are_limited() -> None:
    remote = Remote(delay_s=0.02)
    client = RateLimitedClient(remote, CallOptions(max_concurrency=3))
    await asyncio.gather(*(client.complete(request(str(i))) for i in range(12)))
    assert remote.peak == 3


async def test_a_stage_begins_as_many_calls_as_the_options_let_through(journal) -> None:
    remote = Remote(delay_s=0.05)
    client = equip(remote, CallOptions(max_concurrency=300), journal=journal)
    assert under_way(client) >= 300
    await each([request(str(i)) for i in range(600)], client.complete, at_once=under_way(client))
    assert remote.peak == 300
    assert under_way(equip(remote, CallOptions(max_concurrency=2))) == under_way(remote)


@pytest.mark.parametrize(("limit", "window_s", "count"), [(100, 1.0, 150), (5, 0.5, 10)])
async def test_no_window_holds_more_than_the_limit(limit: int, window_s: float, count: int) -> None:
    times: list[float] = []

    class Timed(Remote):
        async def complete(self, asked: ChatRequest) -> tuple[ChatReply, ...]:
            times.append(time.monotonic())
            return await super().complete(asked)

    client = RateLimitedClient(Timed(), CallOptions(requests_per_minute=limit, max_concurrency=512), window_s=window_s)
    await asyncio.gather(*(client.complete(request(str(i))) for i in range(count)))
    # One more than the limit may fall into a window by the jitter of timers.
    assert all(later - first > 0.97 * window_s for first, later in zip(times, times[limit + 1 :], strict=False))
    assert times[-1] - times[0] >= 0.9 * (count / limit - 1) * window_s


async def test_token_sizes_are_learnt_from_answers() -> None:
    client = RateLimitedClient(Remote(used=9), CallOptions(tokens_per_minute=4_000, max_concurrency=8), window_s=1.0)
    started = time.monotonic()
    # 10 tokens each by what is used, 500 by what was asked for: 100 calls are a quarter of a second or a minute.
    await asyncio.gather(*(client.complete(request(str(i), max_tokens=500)) for i in range(100)))
    assert time.monotonic() - started < 5


async def test_one_client_serves_several_loops(journal) -> None:
    client = equip(Remote(), CallOptions(requests_per_minute=6_000, max_concurrency=1), journal=journal)

    def in_a_loop_of_its_own(number: int) -> None:
        asyncio.run(asyncio.wait_for(client.complete(request(str(number))), 5))

    for number in range(3):
        await asyncio.to_thread(in_a_loop_of_its_own, number)


# Budget


async def test_a_budget_is_never_overdrawn_and_mostly_used() -> None:
    # A call may cost 10 cents and does cost 4.
    remote, budget = Remote(delay_s=0.001), Budget(max_cost_usd=1.0)
    client = BudgetedClient(remote, budget)
    with pytest.raises(BudgetReachedError, match="higher --max-cost") as reached:
        await each([request(str(i)) for i in range(100)], client.complete, at_once=16)
    assert reached.value.exit_code == 3
    assert 0.88 <= budget.spent_usd <= 1.0
    assert budget.spent_usd == pytest.approx(0.04 * len(remote.asked))


async def test_failures_cost_nothing_and_wrong_answers_do() -> None:
    wrong = InvalidReplyError("no", text="no", replies=(ChatReply(text="no", completion_tokens=3),))
    budget = Budget(max_cost_usd=1.0)
    client = BudgetedClient(Remote(TransientCallError("429"), wrong), budget)
    for error in (TransientCallError, InvalidReplyError):
        with pytest.raises(error):
            await client.complete(request(json_schema=SCHEMA))
    assert budget.spent_usd == pytest.approx(0.03)
    assert budget.calls == 2


async def test_calls_are_limited_over_all_starts_of_a_run(tmp_path) -> None:
    def start(journal: CallJournal, calls: int) -> Callable[[int], object]:
        spent, made = journal.spent()
        client = equip(Remote(), FAST, journal=journal, budget=Budget(max_calls=calls, spent_usd=spent, calls=made))
        return lambda number: client.complete(request(str(number)))

    with CallJournal(tmp_path / "j.db") as journal:
        ask = start(journal, 2)
        await ask(0)
        await ask(1)
        with pytest.raises(BudgetReachedError, match=r"calls\.max_calls"):
            await ask(2)
        await ask(0)  # what is known costs nothing
    with CallJournal(tmp_path / "j.db") as journal:
        with pytest.raises(BudgetReachedError):
            await start(journal, 2)(2)
        await start(journal, 3)(2)


def test_money_cannot_be_limited_without_a_price() -> None:
    remote = Remote()
    remote.capabilities = Capabilities()
    with pytest.raises(ConfigError, match="prompt_usd_per_million"):
        BudgetedClient(remote, Budget(max_cost_usd=1.0))
    BudgetedClient(remote, Budget(max_calls=1))
    BudgetedClient(remote, Budget(max_cost_usd=1.0), PRICE)
    with pytest.raises(ConfigError, match="buys nothing"):
        Budget(max_cost_usd=0.0)


# Work


async def test_work_keeps_its_order_and_its_first_error_comes_out_bare() -> None:
    running = peak = 0

    async def work(number: int) -> int:
        nonlocal running, peak
        running, peak = running + 1, max(peak, running + 1)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1
        if number == 17:
            raise KeyError(number)
        return number

    assert await each(range(15), work, at_once=4) == list(range(15))
    assert peak == 4
    assert await each([], work, at_once=4) == []
    with pytest.raises(KeyError):
        await each(range(30), work, at_once=4)

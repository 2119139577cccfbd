"""Records of a turn are made without being checked, so they must be such as a check would let pass."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from rlhi_plugin.message_text import MAX_ID
from rlhi_plugin.records import Message
from rlhi_plugin.thread_path import FOLLOWS_NOTHING, Thread, new_in_thread
from rlhi_plugin.turn import Reply, Turn
from rlhi_plugin.turn_records import records_of

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
TEXT = st.text(st.characters(), max_size=20)  # lone surrogates and NUL included
ID = st.one_of(st.none(), TEXT, st.just("x" * (MAX_ID + 1)))
TOKENS = st.fixed_dictionaries(
    {"input_tokens": st.integers(), "output_tokens": st.integers(0, 2**70), "total_tokens": st.integers(0, 9)}
)
CALLS = st.lists(
    st.fixed_dictionaries({"name": TEXT, "args": st.dictionaries(TEXT, TEXT, max_size=2), "id": TEXT}), max_size=2
)
ASKED = st.builds(
    lambda kind, text, own: kind(text, id=own, **({"tool_call_id": "t"} if kind is ToolMessage else {})),
    st.sampled_from([HumanMessage, SystemMessage, ToolMessage, AIMessage]),
    TEXT,
    ID,
)
ANSWER = st.builds(
    lambda text, own, usage, calls: AIMessage(text, id=own, usage_metadata=usage, tool_calls=calls),
    TEXT,
    ID,
    st.one_of(st.none(), TOKENS),
    CALLS,
)
REPLY = st.builds(
    Reply,
    messages=st.lists(ANSWER, max_size=2),
    model=st.one_of(st.none(), TEXT),
    adapter=st.one_of(st.none(), TEXT, st.integers()),
    persona_digest=st.one_of(st.none(), st.just("0" * 64)),
    latency_s=st.one_of(st.none(), st.floats(0, 1e6)),
    structured=st.booleans(),
    finish=st.sampled_from([None, "incomplete", "failed"]),
)


@settings(max_examples=150, deadline=None)
@given(history=st.lists(ASKED, max_size=4), reply=REPLY, stable=st.booleans())
def test_every_record_is_valid(history, reply, stable):
    turn = Turn("t", None, None, history, reply, stable_ids=stable, started_at=NOW)
    said = new_in_thread(Thread(tail="earlier"), turn, None, root=FOLLOWS_NOTHING)
    for record in records_of(turn, said, NOW, NOW + timedelta(seconds=1)):
        checked = Message.model_validate(record.model_dump())
        assert checked == record
        assert checked.to_json() == record.to_json()
        assert list(record.__dict__) == list(Message.model_fields)
        assert record.as_chat().content == record.content


def test_what_belongs_to_an_answer_alone():
    answer = AIMessage("hello", id="a", usage_metadata={"input_tokens": 3, "output_tokens": 1, "total_tokens": 4})
    reply = Reply((answer,), "m", "ad", "d" * 64, 0.5, finish="failed")
    turn = Turn("t", None, None, [HumanMessage("hi", id="q")], reply, stable_ids=True, started_at=NOW)
    ended = NOW + timedelta(seconds=1)
    said = new_in_thread(Thread(), turn, None, root=FOLLOWS_NOTHING)
    assert records_of(turn, said, NOW, ended) == [
        Message(id="q", role="user", content="hi", created_at=NOW),
        Message(
            id="a", role="assistant", content="hello", created_at=ended, model="m", adapter="ad",
            persona_digest="d" * 64, latency_s=0.5, input_tokens=3, output_tokens=1, finish="failed",
        ),
    ]  # fmt: skip

"""The same conversation as each format writes it: rows of a JSONL file for a list of (role, text)."""

LANGCHAIN = {"user": "human", "assistant": "ai", "system": "system"}


def rlhi(said):
    messages = [{"id": str(i), "role": role, "content": text} for i, (role, text) in enumerate(said)]
    return [{"schema": 1, "conversation_id": "c", "messages": messages}]


def wildchat(said):
    turns = [{"role": role, "content": text, "turn_identifier": i} for i, (role, text) in enumerate(said)]
    row = {"conversation_hash": "h", "model": "gpt-4", "timestamp": 1681000000, "conversation": turns, "turn": 1}
    return [row | {"language": "English", "hashed_ip": "ab", "header": {"user-agent": "x"}, "toxic": False}]


def sharegpt(said):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"id": "QWJhYvA_0", "conversations": [{"from": names[role], "value": text} for role, text in said]}]


def openai(said):
    return [{"messages": [{"role": r, "content": t} for r, t in said], "metadata": {"user": "u1"}}]


def openai_log(said):
    """A log of chat completions: each call repeats the history."""
    rows = []
    for i, (role, text) in enumerate(said):
        if role == "assistant":
            history = [{"role": r, "content": t} for r, t in said[:i]]
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            response = {"object": "chat.completion", "created": 1700000000 + i, "model": "gpt-4o", "choices": [choice]}
            response["usage"] = {"prompt_tokens": 3, "completion_tokens": 4}
            request = {"model": "gpt-4o", "messages": history, "user": "u1"}
            rows.append({"request": request, "response": response, "metadata": {"thread_id": "t"}})
    return rows


def chatgpt_node(name, parent, role, text, **more):
    message = {
        "id": name,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": more.pop("create_time", None),
        "content": {"content_type": "text", "parts": [text]},
        "recipient": "all",
        "metadata": {"model_slug": "gpt-4o"},
    }
    return {"id": name, "message": message | more, "parent": parent, "children": []}


def chatgpt(said):
    mapping = {"n": {"id": "n", "message": None, "parent": None, "children": ["0"]}}
    for i, (role, text) in enumerate(said):
        mapping[str(i)] = chatgpt_node(str(i), str(i - 1) if i else "n", role, text, create_time=1700000000.5 + i)
    return [
        {"title": "T", "create_time": 1700000000.1, "mapping": mapping, "current_node": "0", "conversation_id": "c"}
    ]


def lmsys(said):
    turns = [{"role": role, "content": text} for role, text in said]
    row = {"conversation_id": "c", "model": "vicuna-13b", "conversation": turns, "turn": 1, "language": "English"}
    return [row | {"openai_moderation": [{"flagged": False, "categories": {}}], "redacted": False}]


def openassistant_message(i, role, text):
    return {
        "message_id": str(i),
        "parent_id": str(i - 1) if i else None,
        "user_id": "u1",
        "created_date": f"2023-02-12T19:{i:02d}:16.233571+00:00",
        "text": text,
        "role": {"user": "prompter", "assistant": "assistant"}[role],
        "lang": "en",
        "deleted": False,
        "rank": None,
        "synthetic": False,
        "labels": {"toxicity": {"value": 0.1, "count": 3}},
        "emojis": {"+1": 2},
    }


def openassistant(said):
    tree = None
    for i, (role, text) in reversed(list(enumerate(said))):
        tree = openassistant_message(i, role, text) | {"replies": [tree] if tree else []}
    return [{"message_tree_id": "0", "tree_state": "ready_for_export", "prompt": tree}]


def openassistant_flat(said):
    rows = [openassistant_message(i, role, text) | {"message_tree_id": "0"} for i, (role, text) in enumerate(said)]
    # The order of a file says nothing.
    return rows[::-1]


def _runs(said, inputs, outputs):
    """LangSmith: one trace a turn, in one thread."""
    rows = []
    for i, (role, text) in enumerate(said):
        if role == "assistant":
            rows.append(
                {
                    "id": f"r{i}",
                    "trace_id": f"r{i}",
                    "parent_run_id": None,
                    "run_type": "chain",
                    "inputs": inputs(said[:i]),
                    "outputs": outputs(said[:i], text),
                    "start_time": f"2024-05-01T10:{i:02d}:00",
                    "end_time": f"2024-05-01T10:{i:02d}:02",
                    "extra": {"metadata": {"thread_id": "t", "user_id": "u1", "ls_model_name": "gpt-4o"}},
                    "feedback_stats": {"user_score": {"n": 1, "avg": 1.0, "comments": ["good"]}},
                }
            )
    return rows


def serialised(role, text):
    name = {"user": "HumanMessage", "assistant": "AIMessage", "system": "SystemMessage"}[role]
    body = {"content": text, "type": LANGCHAIN[role]}
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": body}


def langsmith(said):
    return _runs(
        said,
        lambda history: {"messages": [[serialised(*one) for one in history]]},
        lambda _, text: {"generations": [[{"text": text, "message": serialised("assistant", text)}]]},
    )


def langsmith_state(said):
    """A LangGraph state: the output repeats the input."""

    def messages(history):
        return {"messages": [{"type": LANGCHAIN[role], "content": text, "id": None} for role, text in history]}

    return _runs(said, messages, lambda history, text: messages([*history, ("assistant", text)]))


def langsmith_texts(said):
    """A chain from text to text: only what is new."""
    return _runs(said, lambda history: {"input": history[-1][1]}, lambda _, text: {"output": text})


def langfuse(said):
    rows = []
    for i, (role, text) in enumerate(said):
        if role == "assistant":
            history = [{"role": r, "content": t} for r, t in said[:i]]
            trace = {"id": f"t{i}", "timestamp": f"2024-05-01T10:{i:02d}:00.000Z", "name": "chat", "input": history}
            answer = {"role": "assistant", "content": text}
            rows.append(trace | {"output": answer, "sessionId": "s", "userId": "u1", "tags": [], "metadata": {}})
    score = {"id": "x", "traceId": rows[0]["id"], "name": "user-feedback", "value": 0, "source": "API"}
    return [*rows, score | {"dataType": "BOOLEAN", "comment": "wrong", "timestamp": "2024-05-01T11:00:00Z"}]


def langfuse_generations(said):
    """Traces without messages, as storage exports spell them, and generations with them."""
    rows = []
    for i, (role, text) in enumerate(said):
        if role == "assistant":
            history = [{"role": r, "content": t} for r, t in said[:i]]
            rows.append({"id": f"t{i}", "timestamp": f"2024-05-01T10:{i:02d}:00Z", "input": None, "session_id": "s"})
            generation = {"id": f"g{i}", "trace_id": f"t{i}", "type": "GENERATION", "model": "gpt-4o"}
            times = {"start_time": f"2024-05-01T10:{i:02d}:00Z", "end_time": f"2024-05-01T10:{i:02d}:03Z"}
            usage = {"usage_details": {"input": 3, "output": 4}}
            rows.append(generation | times | usage | {"input": {"messages": history}, "output": text})
    return rows


def halie(said):
    rows = []
    for i in range(0, len(said) - 1, 2):
        row = {"session_id": "s", "worker_id": "w", "model": "Davinci", "turn_id": str(i)}
        rows.append(row | {"user_input": said[i][1], "model_completion": said[i + 1][1]})
    return [*rows, {"session_id": "s", "worker_id": "w", "quality": "5.0"}]


def realhumaneval(said):
    rows = []
    for i, (role, text) in enumerate(said):
        if role == "assistant":
            row = {"request": repr([{"role": r, "content": t} for r, t in said[:i]]), "response": text}
            copied = repr([{"type": "copy_button", "copied": text}])
            rows.append(row | {"copy_events": copied, "programmer_id": "63", "timestamp": str(float(i)), "model": "m"})
    return rows


WRITERS = {
    "rlhi": rlhi,
    "wildchat": wildchat,
    "sharegpt": sharegpt,
    "openai": openai,
    "openai_log": openai_log,
    "chatgpt": chatgpt,
    "lmsys": lmsys,
    "openassistant": openassistant,
    "openassistant_flat": openassistant_flat,
    "langsmith": langsmith,
    "langsmith_state": langsmith_state,
    "langsmith_texts": langsmith_texts,
    "langfuse": langfuse,
    "langfuse_generations": langfuse_generations,
    "halie": halie,
    "realhumaneval": realhumaneval,
}
WITH_SYSTEM = {
    "rlhi",
    "sharegpt",
    "openai",
    "openai_log",
    "chatgpt",
    "lmsys",
    "langsmith",
    "langsmith_state",
    "langfuse",
}


def rich():
    """Rows with what conversations hold beside texts, of each format that has it."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    tooled = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "not json"}},
        {"role": "function", "name": "f", "content": "2"},
        {"role": "assistant", "content": "three"},
    ]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    arena = {"question_id": "q", "model_a": "m1", "model_b": "m2", "winner": "model_a", "judge": "arena_user_1"}
    arena |= {"conversation_a": turns, "conversation_b": turns, "turn": 1, "anony": True, "language": "German"}
    thumbs = {
        "message_id": "1",
        "conversation_id": "c",
        "user_id": "u",
        "rating": "thumbs_down",
        "content": '{"text": "x"}',
    }
    chat = chatgpt([("user", "hi"), ("assistant", "hello")])
    chat[0]["mapping"]["2"] = chatgpt_node(
        "2",
        "1",
        "user",
        "",
        content={"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "what?"]},
    )
    chat[0]["mapping"]["3"] = chatgpt_node("3", "2", "assistant", "", recipient="python")
    lc = serialised("assistant", "")
    lc["kwargs"] |= {"tool_calls": [{"name": "add", "args": {"a": 1}, "id": "c"}], "additional_kwargs": {}}
    runs = langsmith([("user", "hi"), ("assistant", "hello")])
    runs[0]["outputs"] = {"messages": [serialised("user", "hi"), lc, serialised("assistant", "hello")]}
    return {
        "openai": [{"messages": tooled, "metadata": {"user": "u"}}],
        "lmsys": [arena | {"tstamp": 1700000000.5, "openai_moderation": {"flagged": True}}],
        "chatgpt": [*chat, thumbs | {"create_time": 1700000000}],
        "langsmith": runs,
    }

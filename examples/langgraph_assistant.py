"""A raw LangGraph `StateGraph`: the node that calls the model is wrapped, and that is all.

Runs on a scripted chat model; any LangChain chat model will do.
"""

from __future__ import annotations

import tempfile
from typing import Any

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from rlhi_plugin import open_store
from rlhi_plugin.integrations.langgraph_nodes import with_rlhi

MODEL = FakeListChatModel(responses=["They turn light into sugar.", "Light becomes sugar."])


def call_model(state: MessagesState) -> dict[str, Any]:
    """An ordinary node. It sees the system prompt, with the persona in it once there is one."""
    return {"messages": [MODEL.invoke(state["messages"])]}


def main() -> None:
    """One thread with a follow-up; the graph's checkpointer remembers it, RLHI logs it."""
    with tempfile.TemporaryDirectory() as folder, open_store(f"sqlite:///{folder}/rlhi.db") as store:
        graph = StateGraph(MessagesState)
        graph.add_node("model", with_rlhi(call_model, store=store, system="Be kind."))
        graph.add_edge(START, "model")
        graph.add_edge("model", END)
        assistant = graph.compile(checkpointer=InMemorySaver())

        ask: Any = {"configurable": {"thread_id": "t1", "user_id": "u42"}}
        for question in ("How do plants grow?", "Shorter, please."):
            said: Any = {"messages": [("user", question)]}
            print(assistant.invoke(said, config=ask)["messages"][-1].text)

        for conversation in store.conversations():
            print(f"\n{conversation.conversation_id} of {conversation.user_id}")
            for message in conversation.messages:
                print(f"  {message.role}: {message.content}")


if __name__ == "__main__":
    main()

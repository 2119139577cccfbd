"""Any LangChain chain: a callback handler logs its chat model calls. It watches only; it puts no persona in.

Runs on a scripted chat model; any LangChain chat model will do.
"""

from __future__ import annotations

import tempfile

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate

from rlhi_plugin import open_store
from rlhi_plugin.integrations.langchain_callback import RLHICallbackHandler


def main() -> None:
    """Two questions of one thread, the second one streamed."""
    prompt = ChatPromptTemplate([("system", "Be kind."), ("user", "{question}")])
    chain = prompt | FakeListChatModel(responses=["They turn light into sugar.", "Light becomes sugar."])
    with tempfile.TemporaryDirectory() as folder, open_store(f"sqlite:///{folder}/rlhi.db") as store:
        chain = chain.with_config(callbacks=[RLHICallbackHandler(store=store)])
        who = {"thread_id": "t1", "user_id": "u42"}
        print(chain.invoke({"question": "How do plants grow?"}, config={"metadata": who}).text)
        for chunk in chain.stream({"question": "Shorter, please."}, config={"metadata": who}):
            print(chunk.text, end="")
        print()

        for conversation in store.conversations():
            print(f"\n{conversation.conversation_id} of {conversation.user_id}")
            for message in conversation.messages:
                print(f"  {message.role}: {message.content}")


if __name__ == "__main__":
    main()

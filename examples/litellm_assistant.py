"""LiteLLM in Python: a callback logs the calls to whatever provider.

Runs on a fake provider on this machine. For a real one, name its model and leave out `api_base` and `api_key`.
For other languages, and for personas, see the LiteLLM proxy in `litellm_proxy/`.
"""

from __future__ import annotations

import os
import tempfile
import time

# Without it, importing LiteLLM fetches a price list from the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm

from rlhi_plugin import open_store
from rlhi_plugin.fake_provider import FakeProvider
from rlhi_plugin.integrations.litellm_callback import RLHILogger


def main() -> None:
    """Two turns of one thread."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeProvider(["They turn light into sugar.", "Light becomes sugar."]) as provider,
        open_store(f"sqlite:///{folder}/rlhi.db") as store,
    ):
        litellm.callbacks = [RLHILogger(store=store)]
        call = {"model": "openai/gpt-4o", "api_base": provider.base_url, "api_key": "any"}
        messages = []
        for question in ("How do plants grow?", "Shorter, please."):
            messages.append({"role": "user", "content": question})
            reply = (
                litellm.completion(messages=messages, metadata={"user_id": "u42", "thread_id": "t1"}, **call)
                .choices[0]
                .message
            )
            print(reply.content)
            messages.append({"role": "assistant", "content": reply.content})

        # LiteLLM logs in the background, a moment after it has answered.
        deadline = time.monotonic() + 60
        while sum(len(c.messages) for c in store.conversations()) < len(messages) and time.monotonic() < deadline:
            time.sleep(0.05)
        for conversation in store.conversations():
            print(f"\n{conversation.conversation_id} of {conversation.user_id}")
            for message in conversation.messages:
                print(f"  {message.role}: {message.content}")


if __name__ == "__main__":
    main()

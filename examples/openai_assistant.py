"""An assistant on the `openai` client: one line wraps it, and every turn is logged and personalised.

Runs on a fake provider on this machine. For a real one, leave out `base_url` and set OPENAI_API_KEY.
"""

from __future__ import annotations

import tempfile

from openai import OpenAI

from rlhi_plugin import Persona, PersonaStatement, open_store
from rlhi_plugin.fake_provider import FakeProvider
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations import turn
from rlhi_plugin.integrations.openai_client import wrap_openai
from rlhi_plugin.records import Evidence


def main() -> None:
    """Two threads of one user, the second with what `rlhi persona build` learned from the first."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FakeProvider() as provider,
        open_store(f"sqlite:///{folder}/rlhi.db") as store,
        OpenAI(base_url=provider.base_url, api_key="any") as plain,
    ):
        client = wrap_openai(plain, store=store, persona_max_age_s=0)
        with turn(user_id="u42", thread_id="t1"):
            messages = [{"role": "user", "content": "How do plants grow?"}]
            reply = client.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message
            messages += [reply, {"role": "user", "content": "Shorter, please."}]
            for chunk in client.chat.completions.create(model="gpt-4o", messages=messages, stream=True):
                print(chunk.choices[0].delta.content or "", end="")
            print()

        # `rlhi persona build` does this from the log.
        evidence = (Evidence(conversation_id="t1", message_id="m", quote="Shorter, please."),)
        statement = PersonaStatement(text="Shorter, please.", evidence=evidence)
        store.put_persona(Persona(user_id=pseudonym("u42"), statements=(statement,), builder="by hand"))

        with turn(user_id="u42", thread_id="t2"):
            client.responses.create(model="gpt-4o", instructions="Be kind.", input="Why is the sky blue?")
        print(f"\nThe model was told:\n{provider.requests[-1].system_text}")

        for conversation in store.conversations():
            print(f"\n{conversation.conversation_id} of {conversation.user_id}")
            for message in conversation.messages:
                print(f"  {message.role}: {message.content}")


if __name__ == "__main__":
    main()

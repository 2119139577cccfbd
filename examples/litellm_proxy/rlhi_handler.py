"""What `config.yaml` names: RLHI in a LiteLLM proxy, for assistants in any language.

Callers say who is speaking with ``"user"`` and ``"metadata": {"thread_id": ...}`` in the request's JSON, or with the
header ``x-litellm-session-id`` for the thread.
"""

from __future__ import annotations

import os

from rlhi_plugin.integrations.litellm_callback import RLHILogger

# One key of the proxy may serve many people: its owner is not taken for the user of every call.
handler = RLHILogger(store=os.environ.get("RLHI_STORE", "sqlite:///rlhi.db"), user_of_key=False, commands=True)

"""RLHI for assistants that are not built with `create_agent`: one file for each way to call a model.

| the assistant calls its model through | import |
|---|---|
| a node of a LangGraph `StateGraph` | `rlhi_plugin.integrations.langgraph_nodes.with_rlhi` |
| a LangChain chain | `rlhi_plugin.integrations.langchain_callback.RLHICallbackHandler` |
| the `openai` client | `rlhi_plugin.integrations.openai_client.wrap_openai` |
| LiteLLM, or any language over the LiteLLM proxy | `rlhi_plugin.integrations.litellm_callback.RLHILogger` |

They share `Observer` (options, personas, recording) and `turn`, which says who is speaking in which thread.
"""

from rlhi_plugin.integrations.observer import Observer, ObserverOptions
from rlhi_plugin.integrations.speaker import Speaker, turn

__all__ = ["Observer", "ObserverOptions", "Speaker", "turn"]

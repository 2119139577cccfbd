"""What other trainers need to read the pairs of a run: Axolotl's data section, LLaMA-Factory's dataset_info.json."""

from __future__ import annotations

import json

AXOLOTL = "axolotl.yml"
LLAMA_FACTORY = "dataset_info.json"
DATASET_NAME = "rlhi_pairs"
"""What ``dataset:`` calls the pairs in LLaMA-Factory."""


def axolotl_config() -> str:
    """The data section for ``rl: dpo`` with the strategy ``chat_template.default``, which takes message lists.

    `Axolotl's documentation <https://docs.axolotl.ai/docs/rlhf.html>`_ names the keys; the strategy takes the last
    message of ``chosen`` and ``rejected``.
    """
    return (
        "# The data section of an Axolotl configuration. Run from this folder, or make the path absolute.\n"
        "rl: dpo\n"
        "datasets:\n"
        "  - path: pairs.jsonl\n"
        "    ds_type: json\n"
        "    split: train\n"
        "    type: chat_template.default\n"
        "    field_messages: prompt\n"
        "    field_chosen: chosen\n"
        "    field_rejected: rejected\n"
        "    message_property_mappings:\n"
        "      role: role\n"
        "      content: content\n"
        "    roles:\n"
        "      system: [system]\n"
        "      user: [user]\n"
        "      assistant: [assistant]\n"
    )


def llama_factory_config() -> str:
    """``dataset_info.json`` with the pairs as a preference data set in the "sharegpt" format with OpenAI's role names.

    Its documentation (``data/README.md``) wants single messages for the two answers, and after an optional system
    message user and assistant in turn, the user last.
    """
    entry = {
        "file_name": "pairs.jsonl",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "prompt", "chosen": "chosen_message", "rejected": "rejected_message"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
    return json.dumps({DATASET_NAME: entry}, indent=2) + "\n"

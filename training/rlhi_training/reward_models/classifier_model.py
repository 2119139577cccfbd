"""Opens a trained reward model and knows its conventions: what it reads, where its score stands, and what that means.

============================  ==========================================  ========================================
saved as                      reads                                       score
============================  ==========================================  ========================================
``AtheneForSequence-          chat template, then the CLS token, then     ``v_head`` at the last CLS token
Classification``              the tokenizer's own special tokens
any causal sequence           chat template                               ``score`` at the last token that is no
classifier (Skywork, ...)                                                 padding, as transformers reads it
any other classifier          chat template; without one, the             its own logits
(DeBERTa, ...)                conversation and the answer as a text pair
============================  ==========================================  ========================================

Athene-RM-8B's model card formats with the chat template, appends ``cls_token`` and tokenises with special tokens, so
that a template which writes the beginning-of-text token gets a second one. That is what the model is used with, and
kept. Skywork's cards warn of exactly that second token; tokenising inside the template writes none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlhi_adapters.loading import DType, load_tokenizer, pick_device, pick_dtype, quiet
from rlhi_adapters.templates import encode
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.records import ChatMessage

Convention = Literal["athene", "causal", "other"]

_ATHENE = "AtheneForSequenceClassification"


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation as token ids; `types` tells the two texts of a pair apart where the model asks for that."""

    ids: list[int]
    types: list[int] | None = None


@dataclass(frozen=True)
class ClassifierModel:
    """A sequence classifier in evaluation mode, on its device.

    Attributes:
        model: The whole model.
        tokenizer: Its tokenizer.
        convention: Row of the table above.
        label: Index of the class whose log-odds are the score; 0 where there is one output, which is the score.
    """

    model: Any
    tokenizer: Any
    convention: Convention
    label: int

    @property
    def backbone(self) -> Any:
        """What computes hidden states."""
        return self.model.base_model

    @property
    def pad(self) -> int:
        """Id to fill rows with."""
        known = (self.model.config.get_text_config().pad_token_id, self.tokenizer.pad_token_id, 0)
        return next(int(token) for token in known if token is not None)

    def encode(self, messages: tuple[ChatMessage, ...], answer: str) -> Row:
        """A conversation with this answer at its end.

        Raises:
            ConfigError: the template refuses these roles.
        """
        whole = (*messages, ChatMessage(role="assistant", content=answer))
        if self.convention == "athene":
            text = _render(self.tokenizer, whole) + self.tokenizer.cls_token
            return Row(list(self.tokenizer(text)["input_ids"]))
        if self.tokenizer.chat_template:
            return Row(encode(self.tokenizer, whole, add_generation_prompt=False))
        before = "\n\n".join(message.content for message in messages)
        pair = self.tokenizer(before, answer)
        return Row(list(pair["input_ids"]), pair.get("token_type_ids"))

    def read(self, rows: list[Row]) -> list[float]:
        """Scores of rows as the whole model gives them, padded side by side."""
        import torch

        width, device = max(len(row.ids) for row in rows), self.model.device
        ids = [row.ids + [self.pad] * (width - len(row.ids)) for row in rows]
        mask = [[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows]
        inputs = {"input_ids": ids, "attention_mask": mask}
        if all(row.types is not None for row in rows):
            inputs["token_type_ids"] = [(row.types or []) + [0] * (width - len(row.ids)) for row in rows]
        tensors = {name: torch.tensor(value, device=device) for name, value in inputs.items()}
        scores: list[float] = self.of_logits(self.model(**tensors).logits).tolist()
        return scores

    def place(self, row: list[int]) -> int:
        """Where in the row the score stands."""
        if self.convention == "athene":
            cls = self.tokenizer.cls_token_id
            return next(i for i in range(len(row) - 1, -1, -1) if row[i] == cls)
        padding = self.model.config.get_text_config().pad_token_id
        return next((i for i in range(len(row) - 1, -1, -1) if row[i] != padding), len(row) - 1)

    def head(self, states: Any) -> Any:
        """Scores [rows] of hidden states [rows, size]."""
        if self.convention == "athene":
            return self.model.v_head(states).squeeze(-1)
        return self.of_logits(self.model.score(states))

    def of_logits(self, logits: Any) -> Any:
        """Scores [rows], float32, of logits [rows, classes]: the only one, or the log-odds of the chosen class."""
        logits = logits.float()
        if logits.shape[-1] == 1:
            return logits[:, 0]
        others = [i for i in range(logits.shape[-1]) if i != self.label]
        return logits[:, self.label] - logits[:, others].logsumexp(dim=-1)


def load_classifier(path: Path, *, dtype: DType = "auto", label: str | None = None) -> ClassifierModel:
    """Open a folder that holds a reward model in safetensors. No code of the folder is run.

    Args:
        path: The folder.
        dtype: ``auto``: bfloat16 where the hardware computes in it, else float32.
        label: Name or number of the class that is good, for a model with several; None: the second of two.

    Raises:
        ArtefactError: it cannot be read, or needs code of its own.
        ConfigError: several classes and no (known) label.
    """
    import torch

    named = _architectures(path)
    device = pick_device()
    precision = getattr(torch, pick_dtype(dtype, device))
    with quiet():
        opener = _athene_class() if _ATHENE in named else _any_class()
        try:
            model, report = opener.from_pretrained(
                path, dtype=precision, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ArtefactError(
                f"cannot load a reward model from {path}: {error}. Use one that transformers opens without code of its"
                " own (AutoModelForSequenceClassification), or Athene's."
            ) from error
        tokenizer = load_tokenizer(path)
    if report["missing_keys"]:
        raise ArtefactError(
            f"{path} lacks weights ({', '.join(sorted(report['missing_keys'])[:3])}), so its scores would be random."
            " Is it a base model? Give a trained reward model."
        )
    return ClassifierModel(
        model.to(device).eval(), tokenizer, _convention(model, tokenizer, path), _label(model, label)
    )


def _architectures(path: Path) -> list[str]:
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} holds no readable config.json: {error}. Give the folder of a model.") from error
    return list(config.get("architectures") or ()) if isinstance(config, dict) else []


def _any_class() -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification


def _athene_class() -> Any:
    """Athene's own head on transformers' Llama: the names of its weights are those that its checkpoints hold."""
    import torch
    from transformers import LlamaModel
    from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

    class AtheneForSequenceClassification(LlamaPreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = LlamaModel(config)
            self.v_head = torch.nn.Linear(config.hidden_size, 1, bias=False)
            self.post_init()

    return AtheneForSequenceClassification


def _convention(model: Any, tokenizer: Any, path: Path) -> Convention:
    if hasattr(model, "v_head"):
        if tokenizer.cls_token_id is None or not tokenizer.chat_template:
            raise ArtefactError(
                f"the tokenizer in {path} has no CLS token or no chat template, which Athene's convention needs."
                " Use the tokenizer that came with it."
            )
        return "athene"
    from transformers.modeling_layers import GenericForSequenceClassification

    return "causal" if isinstance(model, GenericForSequenceClassification) else "other"


def _label(model: Any, label: str | None) -> int:
    count = 1 if hasattr(model, "v_head") else int(model.config.num_labels)
    names = {str(name).lower(): int(index) for index, name in (model.config.id2label or {}).items()}
    if label is None:
        if count <= 2:  # noqa: PLR2004 - one score, or bad and good
            return count - 1
        raise ConfigError(
            f"this reward model has {count} classes ({', '.join(names)}). Say which is good:"
            f" --set reward.classifier_label={next(iter(names), '0')}"
        )
    index = int(label) if label.isdecimal() else names.get(label.lower(), -1)
    if not 0 <= index < count:
        raise ConfigError(f"this reward model has no class {label!r}; it has: {', '.join(names)}.")
    return index


def _render(tokenizer: Any, messages: tuple[ChatMessage, ...]) -> str:
    """The conversation as text under the chat template.

    Raises:
        ConfigError: the template refuses these roles.
    """
    try:
        return str(
            tokenizer.apply_chat_template([{"role": m.role, "content": m.content} for m in messages], tokenize=False)
        )
    except Exception as error:
        # A template is the model's own program: whatever it raises is a refusal.
        roles = ", ".join(message.role for message in messages)
        raise ConfigError(f"the reward model's chat template refuses the roles {roles}: {error}") from error

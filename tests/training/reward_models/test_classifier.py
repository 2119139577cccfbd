"""Trained reward models: their conventions against a plain reading of the model cards, and shared prefixes exactly."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.persona import render_persona
from rlhi_plugin.records import ChatMessage
from rlhi_training.reward_models import RewardModel, Verdict
from rlhi_training.reward_models.classifier import ClassifierOptions, ClassifierReward
from rlhi_training.reward_models.placement import place_persona, without_system


def _scores(path, turn, candidates, persona=None, **options):
    model = ClassifierReward(ClassifierOptions(path=str(path), dtype="float32", **options))
    assert isinstance(model, RewardModel)
    verdicts = asyncio.run(model.score(turn, candidates, persona))
    return [verdict.value for verdict in verdicts], model


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "athene"])
def test_shared_prefixes_change_no_score(family, saved_model, turn, candidates, persona):
    path = saved_model(family)
    shared, model = _scores(path, turn, candidates, persona)
    alone, plain = _scores(path, turn, candidates, persona, share_prefixes=False)
    assert shared == pytest.approx(alone, abs=1e-5)
    assert max(shared) - min(shared) > 1e-2, "a model that likes everything equally tests nothing"
    assert model.notes(model.seen)["tokens_shared"] > 0.5
    assert model.notes(model.seen)["not_shared_because"] is None
    assert plain.notes(plain.seen) == {"tokens_shared": 0.0, "not_shared_because": "reward.share_prefixes is off"}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma"])
def test_a_sequence_classifier_scores_as_its_card_says(family, saved_model, turn, candidates, persona):
    # Skywork: logits[0][0] of AutoModelForSequenceClassification on the chat template's own tokens, one at a time.
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = saved_model(family)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    said = [{"role": m.role, "content": m.content} for m in place_persona(turn.context, persona, "system")]
    expected = []
    for candidate in candidates:
        conversation = [*said, {"role": "assistant", "content": candidate.text}]
        ids = tokenizer.apply_chat_template(conversation, tokenize=True, return_tensors="pt", return_dict=False)
        with torch.no_grad():
            expected.append(float(model(ids).logits[0][0]))
    assert _scores(path, turn, candidates, persona)[0] == pytest.approx(expected, abs=1e-5)


def test_athene_reads_its_head_at_the_last_cls_token(saved_model, turn, candidates):
    # Athene-RM-8B's card: template as text, CLS token appended, tokenised with special tokens; v_head on the last
    # hidden state at the last CLS token.
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, LlamaModel

    path = saved_model("athene")
    tokenizer = AutoTokenizer.from_pretrained(path)
    weights = load_file(path / "model.safetensors")
    backbone = LlamaModel.from_pretrained(path, dtype=torch.float32).eval()
    backbone.load_state_dict({k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
    quoting = candidates[0].model_copy(update={"text": "The token <cls> ends it. Water it well."})
    expected = []
    for candidate in [*candidates, quoting]:
        conversation = [{"role": m.role, "content": m.content} for m in turn.context]
        conversation.append({"role": "assistant", "content": candidate.text})
        ids = tokenizer(tokenizer.apply_chat_template(conversation, tokenize=False) + "<cls>", return_tensors="pt")
        with torch.no_grad():
            states = backbone(ids["input_ids"], output_hidden_states=True).hidden_states[-1][0]
        last = int((ids["input_ids"][0] == tokenizer.cls_token_id).nonzero()[-1])
        expected.append(float(states[last] @ weights["v_head.weight"][0]))
    scores, model = _scores(path, turn, [*candidates, quoting])
    assert scores == pytest.approx(expected, abs=1e-5)
    assert model.notes(model.seen)["not_shared_because"] is None


def test_what_a_tree_cannot_express_is_read_row_by_row(saved_model, turn, candidates, persona):
    scores, model = _scores(saved_model("mistral"), turn, candidates, persona)
    assert all(isinstance(score, float) for score in scores)
    assert "window" in model.notes(model.seen)["not_shared_because"]
    assert model.notes(model.seen)["tokens_shared"] == 0.0


def test_a_classifier_without_template_reads_a_text_pair(saved_model, turn, candidates):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = saved_model("bert", labels=2)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    before = "\n\n".join(m.content for m in turn.context)
    expected = []
    for candidate in candidates:
        with torch.no_grad():
            bad, good = model(**tokenizer(before, candidate.text, return_tensors="pt")).logits[0].tolist()
        expected.append(good - bad)
    scores, used = _scores(path, turn, candidates)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert "causal" in used.notes(used.seen)["not_shared_because"]
    flipped, _ = _scores(path, turn, candidates, label="LABEL_0")
    assert flipped == pytest.approx([-score for score in expected], abs=1e-5)


def test_of_several_classes_one_must_be_named(saved_model, turn, candidates):
    path = saved_model("llama", labels=3)
    with pytest.raises(ConfigError, match=r"3 classes .*--set reward\.classifier_label="):
        _scores(path, turn, candidates)
    with pytest.raises(ConfigError, match="no class 'good'"):
        _scores(path, turn, candidates, label="good")
    one, _ = _scores(path, turn, candidates, label="2")
    assert len(set(one)) == len(candidates)


def test_a_template_without_a_system_role_is_an_error_or_a_prefix(saved_model, turn, candidates, persona):
    path = saved_model("llama", refuses_system=True)
    with pytest.raises(ConfigError, match=r"system message.*--set reward\.no_system_role=user_prefix"):
        _scores(path, turn, candidates, persona)
    prefixed, _ = _scores(path, turn, candidates, persona, no_system_role="user_prefix")
    text = f"You are a helpful assistant.\n\n{render_persona(persona)}\n\n{turn.context[-1].content}"
    by_hand = turn.model_copy(update={"context": (ChatMessage(role="user", content=text),)})
    expected, _ = _scores(path, by_hand, candidates)
    assert prefixed == pytest.approx(expected, abs=1e-5)


def test_the_persona_is_system_text_or_stands_before_the_request(saved_model, turn, candidates, persona):
    path = saved_model("llama")
    nobody, _ = _scores(path, turn, candidates)
    system, _ = _scores(path, turn, candidates, persona)
    prefix, _ = _scores(path, turn, candidates, persona, persona_as="user_prefix")
    assert nobody != system != prefix != nobody
    shown = place_persona(turn.context, persona, "user_prefix")
    assert shown[0] == turn.context[0]
    assert shown[-1].content == f"{render_persona(persona)}\n\n{turn.context[-1].content}"
    assert place_persona(turn.context, None, "user_prefix") == turn.context
    assert without_system((ChatMessage(role="system", content="x"),)) == (ChatMessage(role="system", content="x"),)


def test_what_is_too_long_or_not_a_number_is_unscored(saved_model, turn, candidates, tmp_path):
    path = saved_model("llama")
    long = candidates[0].model_copy(update={"text": "water " * 400})
    model = ClassifierReward(ClassifierOptions(path=str(path), dtype="float32", max_tokens=300))
    verdicts = asyncio.run(model.score(turn, [candidates[0], long], None))
    assert verdicts[1] == Verdict(None, "too_long")
    assert verdicts[0].value is not None
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] * float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    broken = ClassifierReward(ClassifierOptions(path=str(path), dtype="float32"))
    assert asyncio.run(broken.score(turn, candidates, None)) == [Verdict(None, "not_finite")] * len(candidates)


def test_a_base_model_is_no_reward_model(tiny_model_dir, turn, candidates, tmp_path):
    with pytest.raises(ArtefactError, match="lacks weights"):
        _scores(tiny_model_dir, turn, candidates)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard_of", "auto_map": {}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArtefactError):
        _scores(tmp_path, turn, candidates)


def test_a_score_is_a_number_or_a_reason():
    assert Verdict.of(1.5) == Verdict(1.5)
    assert Verdict.of(float("inf")) == Verdict.of(float("nan")) == Verdict(None, "not_finite")
    with pytest.raises(ValueError, match="either"):
        Verdict(float("inf"))


def test_one_reward_model_serves_one_event_loop_after_the_other(turn, candidates, persona, monkeypatch):
    """As in shards, each of which has a loop of its own."""
    model = ClassifierReward(ClassifierOptions(path="nowhere"))

    def score(messages, answers):
        time.sleep(0.002)
        return [Verdict(1.0) for _ in answers]

    monkeypatch.setattr(model, "_score", score)

    async def ask() -> None:
        await asyncio.gather(*(model.score(turn, candidates, persona) for _ in range(5)))

    for _ in range(2):
        asyncio.run(ask())

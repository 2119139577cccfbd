"""Log-likelihoods of given options against a plain forward pass of each whole text."""

import pytest
import torch

from rlhi_adapters.local_model import LocalModel
from rlhi_adapters.templates import encode
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.records import ChatMessage

PROMPT = (ChatMessage(role="user", content="How do I keep basil alive?"),)
OPTIONS = ("Water it well.", "No", "Give it light and tea, for example.")


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return LocalModel.load(str(tiny_model_dir), dtype="float32")


def test_options_are_as_likely_as_a_plain_forward_pass_says(model):
    ((*found,),) = model.log_likelihoods([(PROMPT, OPTIONS)])
    head = encode(model.tokenizer, PROMPT, add_generation_prompt=True)
    for value, option in zip(found, OPTIONS, strict=True):
        tail = model.tokenizer.encode(option, add_special_tokens=False)
        with torch.inference_mode():
            logits = model._model(input_ids=torch.tensor([head + tail])).logits[0].float().log_softmax(-1)
        expected = sum(float(logits[len(head) + i - 1, token]) for i, token in enumerate(tail))
        assert value == pytest.approx(expected, abs=1e-3)


def test_an_option_without_text_and_a_prompt_that_is_too_long_are_refused(model):
    with pytest.raises(ConfigError, match="no text"):
        model.log_likelihoods([(PROMPT, ("yes", ""))])
    endless = (ChatMessage(role="user", content="basil " * 2500),)
    with pytest.raises(ModelCallError, match="Trim the history"):
        model.log_likelihoods([(endless, ("yes", "no"))])

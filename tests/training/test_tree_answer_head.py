"""The frozen output layer: values and gradient against autograd in double precision."""

import pytest
import torch

from rlhi_training.tree.answer_head import HeadForm, score_tokens

N, SIZE, VOCABULARY = 300, 8, 23  # more rows than one chunk


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", [HeadForm(), HeadForm(scale=0.3), HeadForm(scale=0.7, softcap=4.0)])
def test_scores_and_gradient_equal_autograd(form: HeadForm, bias: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(N, SIZE, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(VOCABULARY, SIZE, generator=generator, dtype=torch.float64)
    offset = torch.randn(VOCABULARY, generator=generator, dtype=torch.float64) if bias else None
    targets = torch.randint(0, VOCABULARY, (N,), generator=generator)
    upstream = torch.randn(N, generator=generator, dtype=torch.float64)

    logits = hidden @ weight.t() + (offset if offset is not None else 0.0)
    logits = logits * form.scale
    if form.softcap is not None:
        logits = form.softcap * torch.tanh(logits / form.softcap)
    distribution = logits.log_softmax(dim=1)
    expected = distribution.gather(1, targets[:, None])[:, 0]
    (expected * upstream).sum().backward()
    gradient = hidden.grad.clone()
    hidden.grad = None

    scores = score_tokens(hidden, weight, offset, targets, form)
    (scores.log_probs * upstream).sum().backward()
    torch.testing.assert_close(scores.log_probs.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad, gradient, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        scores.entropy.double(), -(distribution.exp() * distribution).sum(1), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(scores.mean_logits.double(), logits.mean(1), rtol=1e-4, atol=1e-5)
    assert torch.equal(scores.is_top1, logits.argmax(1) == targets)


def test_bfloat16_stays_near_float32() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(40, 64, generator=generator), torch.randn(101, 64, generator=generator) * 0.3
    targets = torch.randint(0, 101, (40,), generator=generator)
    exact = score_tokens(hidden, weight, None, targets, HeadForm()).log_probs
    rough = score_tokens(hidden.bfloat16(), weight.bfloat16(), None, targets, HeadForm()).log_probs
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().mean() < 0.05


def test_a_trained_output_layer_is_refused() -> None:
    weight = torch.randn(5, 4, requires_grad=True)
    with pytest.raises(ValueError, match="frozen"):
        score_tokens(torch.randn(2, 4), weight, None, torch.tensor([0, 1]), HeadForm())


def test_without_gradient_nothing_is_kept() -> None:
    scores = score_tokens(torch.randn(3, 4), torch.randn(5, 4), None, torch.tensor([0, 1, 2]), HeadForm())
    assert not scores.log_probs.requires_grad

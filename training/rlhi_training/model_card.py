"""The README.md inside an adapter: what it is, what it was trained on, and what nobody should conclude from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from rlhi_training.methods.hindsight import PROMPT
from rlhi_training.recipe import Recipe
from rlhi_training.train_options import TrainSection

_SHOWN = (
    "train_loss",
    "loss",
    "rewards/accuracies",
    "rewards/margins",
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
    "advantage/mean",
    "advantage/size",
    "advantage/positive",
    "entropy",
    "mean_token_accuracy",
)
_PERSONA = "Put the user's persona into the system message exactly as training did."
_METHOD = {
    "dpo": "It was trained with persona-conditioned preference optimisation on pairs built from users' own follow-ups "
    "(method: arXiv 2509.25137).",
    "sft": "It was trained by supervised fine-tuning on the chosen answers of pairs built from users' own follow-ups "
    "(the baseline of arXiv 2509.25137).",
    "self_distillation": "It was trained by self-distillation from users' follow-ups on logged answers "
    "(arXiv 2603.12273).",
}
_CAUTION = (
    "Training metrics say nothing about the quality of answers: a falling preference loss also comes from answers "
    "that merely became shorter. Read the evaluation report, with its shuffled-persona control, before serving it."
)
_PACKAGES = ("rlhi", "trl", "peft", "transformers", "torch")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a model card says."""

    base_reference: str
    """What the base is loaded by."""
    base_digest: str
    recipe: Recipe
    sources: Sequence[str]
    """`PreferencePair.source` of each pair trained on."""
    dropped: Mapping[str, int]
    """Pairs left out by the trainer, by reason."""
    steps: int
    metrics: Mapping[str, float]
    persona_frame_digest: str | None = None
    warnings: Sequence[str] = field(default_factory=tuple)


def render(facts: CardFacts) -> str:
    """The card in Markdown, with the metadata block that model hubs read."""
    sections = [
        _front_matter(facts),
        "# A LoRA adapter trained with RLHI",
        f"{_METHOD[facts.recipe.train.method]} {_PERSONA}",
        _usage(facts),
        _data(facts),
        _training(facts),
        _metrics(facts),
        _limits(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: CardFacts) -> str:
    return (
        "---\n"
        f"base_model: {facts.base_reference}\n"
        "library_name: peft\n"
        "pipeline_tag: text-generation\n"
        f"tags: [lora, {facts.recipe.train.method}, trl, rlhi]\n"
        "---"
    )


def _usage(facts: CardFacts) -> str:
    return (
        "## Use\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        "from rlhi_adapters.base_models import resolve_base\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f'base = resolve_base("{facts.base_reference}")\n'
        "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), ADAPTER_FOLDER)\n"
        "```"
    )


def _data(facts: CardFacts) -> str:
    counts = ", ".join(f"{n} {source}" for source, n in sorted(Counter(facts.sources).items()))
    noun = "logged answers" if facts.recipe.train.method == "self_distillation" else "preference pairs"
    lines = [f"## Data\n\n{len(facts.sources)} {noun}: {counts}."]
    if facts.dropped:
        lines.append("Left out: " + ", ".join(f"{n} {reason}" for reason, n in sorted(facts.dropped.items())) + ".")
    return " ".join(lines)


def _training(facts: CardFacts) -> str:
    train = facts.recipe.train
    rows = [
        ("recipe", facts.recipe.name),
        ("steps", facts.steps),
        *_objective(train),
        *_rounds(train),
        ("learning rate", train.learning_rate),
        ("epochs", train.epochs),
        ("items per step", train.batch_size),
        *_adapter(train),
        ("seed", train.seed),
        ("base weights, SHA-256", facts.base_digest),
        ("persona frame, SHA-256", facts.persona_frame_digest or "not given"),
        ("versions", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)),
    ]
    return "## Training\n\n" + markdown_table(("what", "value"), rows)


def _adapter(train: TrainSection) -> list[tuple[str, object]]:
    bits = [("base in training", "NF4, 4 bits")] if train.quantize == "nf4" else []
    if train.continue_from is not None:
        return [*bits, ("continued from", train.continue_from), ("reference", train.reference)]
    kind = " ".join(name for name, on in (("DoRA", train.dora), ("rsLoRA", train.rslora)) if on) or "LoRA"
    return [
        *bits,
        (f"{kind} rank / alpha", f"{train.lora_rank} / {train.lora_alpha}"),
        ("target modules", train.target_modules),
    ]


def _objective(train: TrainSection) -> list[tuple[str, object]]:
    """What of the recipe says what was minimised."""
    if train.method == "sft":
        return [("loss", "negative log-likelihood of the chosen answers' tokens")]
    if train.method == "self_distillation":
        return [
            ("loss", "advantage of the follow-up, token by token"),
            ("teacher", train.teacher),
            ("advantage clip, nats", train.advantage_clip),
            ("prompt of the teacher", PROMPT.version),
        ]
    return [
        ("losses", ", ".join(f"{n} x {w:g}" for n, w in zip(train.loss, train.loss_weights, strict=True))),
        ("beta", train.beta),
    ]


def _rounds(train: TrainSection) -> list[tuple[str, object]]:
    if train.rounds == 1:
        return []
    return [
        ("rounds", f"{train.rounds} of {train.sync_every} steps; data counts above are the last one's"),
        ("reference", train.reference),
    ]


def _metrics(facts: CardFacts) -> str:
    rows = [(name, f"{facts.metrics[name]:.4g}") for name in _SHOWN if name in facts.metrics]
    return "## Last logged training metrics\n\n" + markdown_table(("metric (TRL's names)", "value"), rows)


def _limits(facts: CardFacts) -> str:
    lines = [
        "## Limits",
        _CAUTION,
        "The adapter fits only the base weights named above.",
    ]
    lines += [f"Warning from training: {warning}." for warning in facts.warnings]
    return "\n\n".join(lines)


def markdown_table(head: tuple[str, str], rows: Sequence[tuple[str, object]]) -> str:
    """A table of two columns; what would end a cell is spelled so that it does not."""
    body = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)
    return f"| {head[0]} | {head[1]} |\n|---|---|\n{body}"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"

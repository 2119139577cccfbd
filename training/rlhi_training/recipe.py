"""One recipe model: it is the TOML file, the environment, the command line and the documentation of every option.

`rlhi_training.recipe_files` reads it from those. Each default names its source: the paper (arXiv 2509.25137), another
paper, or "ours".
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rlhi_plugin.calls.options import CallOptions
from rlhi_training.trackers import Tracker


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelSection(_Section):
    """The policy: what is adapted, and what writes candidates and rewrites unless told otherwise."""

    base: str = "smollm2-135m-instruct"
    """``smollm2-135m-instruct`` (embedded), a hub id, or a local folder. Ours; the paper uses Llama-3.1-8B-Instruct."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 where the hardware computes in it, else float32. Ours."""
    max_new_tokens: int = Field(default=96, ge=8, le=8192)
    """Cap on a generated answer; an answer that reaches it is never used as chosen. Ours."""
    temperature: float = Field(default=0.8, ge=0.0, le=2.0)
    """Sampling temperature of candidates. Ours; arXiv 2506.21495 samples at 1.0."""
    served: str | None = None
    """Where the policy is served while it writes, such as ``openai:my-model@http://127.0.0.1:8000/v1`` (a vLLM server).
    None: it runs in this process. Ours."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs the policy while it writes: transformers on CPU or GPU, or vLLM on a GPU. Ours."""


class IngestSection(_Section):
    """Which conversations are used at all."""

    max_conversations: int | None = Field(default=None, ge=1)
    """Stop after so many usable conversations, in file order. None: all. Ours."""
    max_context_chars: int = Field(default=8000, ge=100)
    """A turn whose context is longer is trimmed by whole turns from the front. Ours."""
    drop_toxic: bool = True
    """Leave out what the log's own moderation flagged: users also reward unsafe answers (arXiv 2507.23158)."""


class ScreensSection(_Section):
    """Which conversations are screened out at ingest (`rlhi_training.screens`: one predicate, one file). All ours."""

    strict_roles: bool = False
    """Drop conversations whose roles are out of order (the assistant first, two answers in a row). Off: apps that greet
    or regenerate log such, and turns are cut from them without harm; they are counted."""
    min_user_chars: int = Field(default=4, ge=0)
    """What the user wrote, all messages together. Less is "hi" or a slip of the hand."""
    max_turn_chars: int = Field(default=100_000, ge=100)
    """One message. More (about 25,000 tokens) is a pasted document, fits no context, and costs every later stage."""
    max_conversation_chars: int = Field(default=1_000_000, ge=100)
    """All messages together. More is a program that talks with a program."""
    languages: tuple[str, ...] = ()
    """English names of the languages to keep (``["English", "French"]``). Empty: all, since methods and models that
    cannot cope with a language are better told per language in the report."""
    toxicity_threshold: float | None = Field(default=None, gt=0.0, le=1.0)
    """Drop conversations in which alt-profanity-check gives a user message this probability or more of being
    offensive. None, the default: only the log's own flag counts (`IngestSection.drop_toxic`), because the classifier
    knows English words alone and takes quotations for insults. Needs the extra ``toxicity``."""
    jailbreaks: Literal["drop", "mark", "off"] = "drop"
    """Requests built to break a model's rules. Dropped, because users like it when they succeed (arXiv 2507.23158)."""
    refusals: Literal["drop", "mark", "off"] = "mark"
    """Conversations in which an answer declines. Only counted: a right refusal is a good answer."""
    train_against_refusals: bool = False
    """False: no pair may prefer a compliant answer over a refusal, because users punish right refusals as well
    (arXiv 2507.23158, 2602.08829)."""
    template_users: int = Field(default=5, ge=0)
    """A long first message is a template once so many others sent most of it; later ones are dropped. 0: off."""
    template_share: float = Field(default=0.6, gt=0.0, le=1.0)
    """How much of a first message those others must have sent: what is left is the noun that is filled in."""
    near_duplicates: float = Field(default=0.8, ge=0.0, lt=1.0)
    """Jaccard resemblance of the user's words to those of an earlier conversation above which it is dropped: repeated
    questions repeat pairs. 0: off."""
    expected_conversations: int = Field(default=1_000_000, ge=1000)
    """What the memory of near-duplicates is made for: 45 bytes each. Twice as many do no harm."""
    max_conversations_per_user: int = Field(default=200, ge=0)
    """The first so many of each user, in the order of the log. A user with thousands is a script; the largest in a
    sample of 4,000 of WildChat has 43. 0: no limit."""


class SplitSection(_Section):
    """Who and what is kept away from training, so that evaluation has something that training never saw.

    Users are drawn by a hash of their pseudonym, so that a user stays on one side when the log grows or is read in
    another order. Anonymous conversations cannot be split by user; they train.
    """

    held_out_users: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of users whose conversations never train. The paper evaluates on held-out users (arXiv 2509.25137); the
    share is ours."""
    held_out_history: float = Field(default=0.5, gt=0.0, lt=1.0)
    """Share of a held-out user's conversations, the earliest, that their persona may be built from; the others are for
    evaluation. Ours."""
    later_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of a training user's conversations, the latest, that are kept for evaluation on users that training knows.
    0: none, since the paper has no such test and every conversation counts. Ours."""
    seed: int = 0
    """Of the hash. Apart from the recipe's, so that a repeated training keeps its evaluation set."""
    frozen: str | None = None
    """``split.jsonl`` of an earlier run: what it decided stays decided, only what it does not know is drawn."""


class LabelSection(_Section):
    """What reads the follow-ups."""

    labeller: str = "embedded"
    """``fast`` (words and cues), ``encoder`` (fine-tuned MiniLM), ``embedded`` (the better of these two), ``llm`` (any
    LiteLLM model; the paper uses GPT-4o), ``cascade`` (fast, encoder, and `llm` if named), or another package's."""
    llm: str | None = None
    """Model for ``labeller = "llm"`` and ``"cascade"``, as ``provider/model`` (LiteLLM) or
    ``openai:model@http://address/v1``."""
    votes: int = Field(default=1, ge=1, le=15)
    """How often that model is asked about each follow-up (ours)."""


class PersonasSection(_Section):
    """How a user's history becomes a persona. The paper has an LLM summarise it."""

    enabled: bool = True
    """False: nobody has a persona. Ours."""
    builder: Literal["extractive", "llm"] = "extractive"
    """``extractive`` quotes the user's own feedback (ours); ``llm`` is the paper's."""
    llm: str | None = None
    """Model for ``builder = "llm"``, written as for the labeller."""
    max_statements: int = Field(default=6, ge=1, le=20)
    """Statements per persona, best supported first. Ours."""


class RewriteSection(_Section):
    """User-Guided Rewrites (the paper's UGR): turns whose follow-up carries feedback."""

    enabled: bool = True
    """Whether there are pairs of this source."""
    llm: str | None = None
    """Model that rewrites, written as for the labeller; None: the policy itself."""
    guidance: Literal["follow_up", "none"] = "follow_up"
    """``follow_up``: the rewriter reads what the user said. ``none`` is the paper's ablation without user guidance:
    neither the rewriter nor the choice among its answers, nor the filter, knows what the user said."""
    original: Literal["logged", "policy"] = "logged"
    """The rejected side: the answer as it was logged, or one that the policy writes anew under the pair's own prompt
    (on-policy, reported for the paper); the rewriter then sees that one. Default: ours, it costs nothing."""
    samples_seeing_reply: int = Field(default=3, ge=0, le=32)
    """Rewrites per turn that see the old reply and the follow-up, as in the paper. Count: ours."""
    samples_blind: int = Field(default=3, ge=0, le=32)
    """Rewrites per turn that see only the follow-up (without guidance: a fresh answer, from scratch). Ours: both kinds
    together answered more complaints."""
    max_prompt_chars: int = Field(default=16000, ge=100)
    """Cap on context, old reply and follow-up together. A reply that does not fit is not shown; a turn that does not
    fit without it is dropped with a reason. Ours."""
    max_turns: int | None = Field(default=None, ge=1)
    """Rewrite at most so many turns: those of users with a persona first, then in file order. None: all. Ours."""


class RewardSection(_Section):
    """User-Based Rewards (the paper's UBR): turns without feedback."""

    enabled: bool = True
    """Whether there are pairs of this source."""
    samples: int = Field(default=4, ge=2, le=64)
    """Answers sampled per request. arXiv 2506.21495 uses 8."""
    model: Literal["auto", "checked", "judge", "judge_pairs", "classifier"] = "auto"
    """What scores: ``checked`` counts which of the user's checkable wishes are kept (ours); ``judge`` has `llm` rate
    each answer, ``judge_pairs`` has it compare every two in both orders; ``classifier`` is a trained reward model as in
    the paper. ``auto``: a classifier where one is named, else a judge where `llm` is, else ``checked``."""
    llm: str | None = None
    """Model of the judge, written as for the labeller, or ``policy`` for the policy itself."""
    classifier: str | None = None
    """Folder or hub id of a reward model in safetensors: Athene's, Skywork's, or whatever
    ``AutoModelForSequenceClassification`` opens. The paper is reported to use Nexusflow/Athene-RM-8B."""
    classifier_label: str | None = None
    """Class that is good, for a classifier with more than two."""
    classifier_max_tokens: int = Field(default=4096, ge=64)
    """A longer conversation is unscored, never cut. 4096 is where Athene-RM-8B's model card cuts."""
    share_prefixes: bool = True
    """Read what the candidates of a request have in common once (exact up to rounding)."""
    persona: bool = True
    """False is the paper's user-agnostic ablation: the score does not know the user. ``checked`` cannot do that."""
    persona_in_prompt: bool = True
    """Whether candidates are sampled, and pairs trained, with the persona in the prompt. False together with
    ``persona = false`` is plain preference training without users, the control that AlpacaEval figures need."""
    persona_as: Literal["system", "user_prefix"] = "system"
    """Where a classifier finds the persona: as system text, or before the request. Ours."""
    no_system_role: Literal["error", "user_prefix"] = "error"
    """What to do where the classifier's template takes no system message. Ours."""
    min_margin: float = Field(default=0.05, ge=0.0)
    """Best and worst whose scores are closer are no preference. On the scorer's own scale; 0.05 is ours for
    ``checked``, where a little repetition makes less."""
    max_turns: int | None = Field(default=None, ge=1)
    """Sample for at most so many turns, in file order. None: all. Ours."""


class ContrastSection(_Section):
    """Persona contrast (ours): one request's candidates ranked under several users' personas, pairs where it turns."""

    enabled: bool = True
    """Whether there are pairs of this source."""
    cross_user: bool = True
    """False: never put one user's request under another user's persona; no contrast pairs are then made."""
    rank_by: Literal["checks", "reward_model"] = "checks"
    """``checks``: how many of a persona's checkable wishes an answer keeps. ``reward_model``: the scorer of `reward`,
    under each persona; personas then need not ask for anything checkable. Ours."""
    plain_samples: int = Field(default=1, ge=0, le=32)
    """Candidates per request written without guidance. Ours."""
    guided_samples: int = Field(default=2, ge=0, le=32)
    """Candidates per request and per persona, written under the properties that the persona asks for. Ours."""
    use_rewrites: bool = True
    """Whether the rewrites that stage rewrite wrote for a request join its pool. Ours."""
    use_samples: bool = True
    """Whether the candidates that stage reward sampled for a request join its pool. Ours."""
    guidance: Literal["instructions", "demonstrations"] = "instructions"
    """How a guided candidate is obtained: by each check's instruction, or by a few earlier turns that show the
    properties, which also works with models too small to follow instructions. Ours."""
    other_personas: Literal["as_of", "latest"] = "as_of"
    """Personas of other users: as of the moment before the request, or (more of them) the latest one. The author's own
    persona never holds anything later than the request. Ours."""
    min_users_per_property: int = Field(default=2, ge=1)
    """A property only fewer users asked for stays out of the pool: it could point to one person."""
    personas_per_request: int = Field(default=4, ge=1, le=64)
    """Personas that one request is ranked under."""
    gate: bool = True
    """Whether a wish counts only where the request leaves room for it (`rlhi_plugin.persona.gate`): bullet points do
    not count in a translation. Personas of which nothing counts are the irrelevant ones. Ours."""
    only_turning: bool = False
    """Keep only pairs that another persona of the request ranks the other way round. False: prefer them. Ours."""
    min_gain: float = Field(default=0.5, ge=0.0)
    """``rank_by = "reward_model"`` only: least difference of two scores, in standard deviations of the pool under that
    persona. Ours."""
    max_length_ratio: float = Field(default=1.35, ge=1.0)
    """Longer over shorter answer, in words, unless length itself was asked for."""
    neutral_share: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of extra pairs without persona in which the plain answer wins, so that the model learns when not to."""
    irrelevant_share: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of extra pairs under a persona that says nothing about the request, in which the plain answer wins
    (injected memory leaks into where it does not belong: arXiv 2602.01146). Ours."""
    max_requests: int | None = Field(default=None, ge=1)
    """Build pools for at most so many requests. None: all."""


class FilterSection(_Section):
    """What a pair must survive. The paper calls quality filtering essential; the predicates are ours."""

    quality: bool = True
    """False is the ablation without quality filter: only what cannot be a preference is dropped (duplicates, equal
    texts), evaluation prompts, and what exceeds the caps."""
    addresses_feedback: Literal["code", "judge", "reward_model", "off"] = "code"
    """Whether a rewrite does what the follow-up asked for (the question of arXiv 2507.23158), decided by ``code``: the
    asked-for properties where they are checkable, else nearness to the feedback; by a ``judge`` that sees the
    follow-up, in both orders; or by the ``reward_model``, which reads the follow-up as part of the request."""
    not_worse: Literal["code", "judge", "reward_model", "off"] = "code"
    """Whether it is, blind to the feedback, as good as the original: ``code`` looks for flaws; a ``judge`` and the
    ``reward_model`` compare both answers besides. ``off`` leaves flaws in."""
    llm: str | None = None
    """LiteLLM model id of the judge, or ``policy``. None: the judge of `reward`."""
    max_loss: float = Field(default=0.0, ge=0.0)
    """``not_worse = "reward_model"``: how much lower than the original a rewrite may score. Ours."""
    min_gain: float = Field(default=0.0, ge=0.0)
    """``addresses_feedback = "reward_model"``: how much higher than the original it must score, exclusive. Ours."""
    undecided: Literal["drop", "keep"] = "drop"
    """A judge whose verdict changes with the order of the answers: drop the pair (ours), or count it as a tie."""
    max_pairs_per_user_share: float = Field(default=0.2, gt=0.0, le=1.0)
    """No user contributes more pairs than this share of what passed the other filters (ours: a few poisoned pairs can
    turn a model). Where few users have most pairs, a share of what is then left can be larger."""
    max_pairs_per_user: int | None = Field(default=None, ge=1)
    """Nor more pairs than this. None: no such cap. Ours."""
    max_repeated_share: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of repeated 4-grams above which a chosen answer is dropped."""
    min_chosen_words: int = Field(default=5, ge=1)
    """Fewer words than this are no answer, unless a short one was asked for."""
    min_similarity_gain: float = Field(default=0.02, ge=-1.0, le=1.0)
    """Where feedback names nothing that code can check: how much closer (cosine of sentence embeddings) the rewrite
    must be to the feedback than the original was. Ours, and weak: see the training README."""
    min_margin: float = Field(default=0.0, ge=0.0)
    """Least score difference of a scored pair; each source has its own scale. 0: any. Ours."""
    max_length_ratio: float | None = Field(default=None, ge=1.0)
    """Longer over shorter answer, in words, unless length was asked for. None: any. Ours; DPO amplifies whatever length
    difference the pairs have (arXiv 2403.19159)."""
    match_language: bool = True
    """Drop pairs whose chosen answer is in another language than the request, unless that language was asked for or the
    rejected answer is in it too. Where the language cannot be told, the pair stays. Ours."""
    evaluation_prompts: tuple[str, ...] = ()
    """Files or folders of evaluation prompts (.jsonl, .json, .txt): pairs that hold one are dropped. None by default:
    the evaluations are not part of the package."""
    contamination_ngram: int = Field(default=8, ge=3, le=50)
    """Words in an n-gram of the contamination check: 8 in Tulu 3 (arXiv 2411.15124)."""
    contamination_share: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of an evaluation prompt's words that must be found in one pair, in n-grams: half in Tulu 3."""
    require_persona: bool = False
    """Keep only pairs with a persona in the prompt (and the neutral ones of persona contrast): a pair without one
    teaches every user what a single user asked for. Ours."""
    max_pairs: int | None = Field(default=None, ge=1)
    """Keep at most so many pairs, drawn evenly over users and sources. None: all."""


class DatasetSection(_Section):
    """What the data card says of pairs that leave the house."""

    title: str = "Preference pairs from users' follow-ups"
    """Heading of the card."""
    licence: str = "other"
    """Licence of the pairs, as hubs spell it (``cc-by-4.0``). It depends on your log; nobody else can know."""
    source_licences: dict[str, str] = Field(default_factory=lambda: {"wildchat": "ODC-BY 1.0"})
    """Licence of each log format's data, by `Conversation.source`."""


class UsersSection(_Section):
    """How many users a run learns from."""

    max_users: int | None = Field(default=None, ge=1)
    """Use the conversations of so many users only, drawn by `seed`; anonymous conversations stay out then. The paper's
    ablation with fewer users. Smaller draws are part of larger ones. None: all, and the anonymous."""


class PairsSection(_Section):
    """How pairs become training rows."""

    persona: Literal["own", "shuffled", "none"] = "own"
    """``shuffled`` puts another user's persona into each pair's prompt: a control, in which it explains nothing.
    ``none`` leaves personas out of the prompts. Controls of ours."""


class TrainSection(_Section):
    """How a LoRA adapter is trained, on TRL: persona-conditioned DPO, or another `method`."""

    method: Literal["dpo", "sft", "self_distillation"] = "dpo"
    """``dpo``: pairs, with `loss` (the paper's method). ``sft``: the chosen answers alone, as TRL's ``SFTTrainer`` has
    it (the paper's baseline). ``self_distillation``: logged answers whose follow-up carries feedback, without pairs
    (arXiv 2603.12273; `rlhi_training.methods.hindsight`). Options of `loss`, `beta` and reference are DPO's."""
    teacher: Literal["base", "start", "current"] = "base"
    """Self-distillation: who reads the follow-up. ``base``: the base model, asked once (ours: the target stands
    still). ``start``: the adapter as training began, asked once. ``current``: the model as it is at each step, as the
    paper's authors do; one more pass a step."""
    advantage_clip: float = Field(default=2.0, gt=0.0)
    """Self-distillation: largest size of one token's advantage, in nats. 2 is the default of the trainer that the
    paper's authors published; a run script of theirs sets 100."""
    rounds: int = Field(default=1, ge=1, le=99)
    """1: offline, on the run's pairs. More (semi-online, arXiv 2506.21495): every later round samples, scores and pairs
    with the adapter so far; needs `reward` or `contrast`. `epochs` is not read then."""
    sync_every: int = Field(default=8, ge=1)
    """Optimiser steps of one round, after which the adapter that samples is the one that was trained. arXiv 2506.21495
    compares 5, 10 and 100 with 1. Default: ours."""
    reference: Literal["start", "base", "round"] = "start"
    """What DPO holds the adapter close to. ``start``: what training began with, which is the base for a new adapter
    and, as in TRL, a continued one as it was: the policy whose answers the pairs are about. ``base``: the bare base, so
    that many short trainings drift no further than one long one. ``round``: the adapter with which each round began.
    Ours: ``start``, so that all rounds together stay near it."""
    follow_ups: Literal["own", "shuffled"] = "own"
    """Self-distillation: ``shuffled`` shows the teacher another turn's follow-up: a control of ours, in which it
    explains nothing."""
    loss: tuple[str, ...] = ("sigmoid", "sft")
    """TRL loss types (`rlhi_training.losses` lists them). The paper: DPO (``sigmoid``); the SFT term
    is ours and keeps answers from collapsing."""
    loss_weights: tuple[float, ...] = (1.0, 0.2)
    """One weight for each of `loss`, in its order. Ours."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of pairs whose sides are taken to be swapped, for the losses ``robust`` (arXiv 2403.00409 uses 0.1),
    ``exo_pair`` (arXiv 2402.00856 uses 0.001), ``aot`` and ``aot_unpaired``. TRL's default."""
    beta: float = Field(default=0.1, gt=0.0)
    """arXiv 2506.21495 uses 0.01 with full fine-tuning; 0.1 is TRL's default and ours for LoRA."""
    learning_rate: float = Field(default=3e-4, gt=0.0)
    """Ours, for a 135M model with LoRA; arXiv 2506.21495 uses 1e-6 on all weights of an 8B model."""
    epochs: float = Field(default=2.0, gt=0.0)
    """Times that each pair is trained on. Ours."""
    batch_size: int = Field(default=8, ge=1)
    """Pairs per optimiser step. arXiv 2506.21495 uses 32."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Pairs per forward pass; must divide `batch_size`. Without effect where `tokens_per_batch` counts. Ours."""
    tokens_per_batch: int | None = Field(default=None, ge=64)
    """Most tokens of a forward pass, which is what its memory follows: the trees of `batch_size` pairs are packed into
    as few passes as hold them, and loss and gradients stay those of the whole batch. A conversation that is larger is
    cut into runs of turns; a pair that is larger is dropped with a reason. None: `micro_batch_size` pairs a pass. Of
    method ``dpo``; the others take `micro_batch_size`. Ours."""
    warmup_steps: int = Field(default=5, ge=0)
    """Optimiser steps over which the learning rate rises, a quarter of all steps at most; then it falls linearly to 0.
    Ours."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """arXiv 2506.21495 clips at 0.1."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the two factors of a weight's change (LoRA, arXiv 2106.09685). Ours."""
    lora_alpha: int = Field(default=32, ge=1)
    """The change is scaled by this over the rank (see `rslora`). Ours: twice the rank."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of a layer's inputs that the change does not see at a step. Ours."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that are adapted: ``all-linear`` (all but the output layer), or names as PEFT takes them. Ours."""
    dora: bool = False
    """Weights split into magnitude and direction (DoRA, arXiv 2402.09353): slower, sometimes better at low ranks."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA, arXiv 2312.03732): for high ranks."""
    quantize: Literal["none", "nf4"] = "none"
    """``nf4``: the base's linear layers in 4 bits (QLoRA, arXiv 2305.14314), a quarter of bfloat16's memory for about a
    third more time. Needs the extra ``qlora``. The adapter is then one for the base as 4 bits approximate it."""
    gradient_checkpointing: bool = False
    """Keep one state a layer and compute the rest again in the backward pass: the same gradients, a fraction of the
    memory for activations, a third more time (arXiv 1604.06174). On a processor more than that, since freed memory goes
    back to the system at once (`rlhi_training.allocator`)."""
    continue_from: str | None = None
    """Start from this adapter, by its name in the registry or its folder, instead of a new one. Rank, alpha, dropout,
    modules, `dora` and `rslora` are then the adapter's own; `reference` says what it is held close to."""
    max_length: int = Field(default=2048, ge=64)
    """Tokens of prompt plus answer; a longer pair is dropped with a reason, never cut."""
    share_prefixes: bool = True
    """Compute what the sequences of a batch have in common once (exact; see rlhi_training.tree)."""
    share_within: Literal["batch", "pair"] = "batch"
    """Which sequences: all of a forward pass, or only the two of a pair (arXiv 2410.20305). Ours."""
    check_parity: bool = True
    """Compare eight pairs of the first reference batch and of the first training batch with TRL's own pass, and train
    without sharing where they differ. It costs less than one step. Ours."""
    reuse_reference: bool = True
    """Keep what the base thinks of an answer in the cache folder, for later runs on the same pairs."""
    report_to: tuple[Tracker, ...] = ()
    """Experiment trackers: ``trackio``, ``tensorboard`` (files in the run's folder), ``wandb``. Need the extra
    ``track``. Ours: none."""
    seed: int = 0
    """Of the adapter's first weights, the order of the pairs, and dropout; apart from the recipe's. Ours."""

    @property
    def token_budget(self) -> int | None:
        """`tokens_per_batch` where the method divides its batches so."""
        return self.tokens_per_batch if self.method == "dpo" else None


class Recipe(_Section):
    """A whole run."""

    name: str
    """What adapters are named after."""
    summary: str
    """One line for ``rlhi-train recipes``."""
    seed: int = 0
    """Of what stages before training draw: samples, caps, users. `split` and `train` have their own."""
    model: ModelSection = ModelSection()
    ingest: IngestSection = IngestSection()
    screens: ScreensSection = ScreensSection()
    split: SplitSection = SplitSection()
    label: LabelSection = LabelSection()
    personas: PersonasSection = PersonasSection()
    rewrite: RewriteSection = RewriteSection()
    reward: RewardSection = RewardSection()
    contrast: ContrastSection = ContrastSection()
    filter: FilterSection = FilterSection()
    users: UsersSection = UsersSection()
    pairs: PairsSection = PairsSection()
    train: TrainSection = TrainSection()
    calls: CallOptions = CallOptions()
    dataset: DatasetSection = DatasetSection()

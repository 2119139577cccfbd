"""One recipe model: it is the TOML file, the environment, the command line and the documentation of every option.

`rlhi_training.recipe_files` reads it from those; the options of training are in `rlhi_training.train_options`. Each
default names its source: the paper (arXiv 2509.25137), another paper, or "ours".
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhi_plugin.calls.options import CallOptions
from rlhi_training.section import Section
from rlhi_training.train_options import TrainSection


class ModelSection(Section):
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


class IngestSection(Section):
    """Which conversations are used at all."""

    max_conversations: int | None = Field(default=None, ge=1)
    """Stop after so many usable conversations, in file order. None: all. Ours."""
    max_context_chars: int = Field(default=8000, ge=100)
    """A turn whose context is longer is trimmed by whole turns from the front. Ours."""
    drop_toxic: bool = True
    """Leave out what the log's own moderation flagged: users also reward unsafe answers (arXiv 2507.23158)."""


class ScreensSection(Section):
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


class SplitSection(Section):
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


class LabelSection(Section):
    """What reads the follow-ups."""

    labeller: str = "embedded"
    """``fast`` (words and cues), ``encoder`` (fine-tuned MiniLM), ``embedded`` (the better of these two), ``llm`` (any
    LiteLLM model; the paper uses GPT-4o), ``cascade`` (fast, encoder, and `llm` if named), or another package's."""
    llm: str | None = None
    """Model for ``labeller = "llm"`` and ``"cascade"``, as ``provider/model`` (LiteLLM) or
    ``openai:model@http://address/v1``."""
    votes: int = Field(default=1, ge=1, le=15)
    """How often that model is asked about each follow-up (ours)."""


class PersonasSection(Section):
    """How a user's history becomes a persona. The paper has an LLM summarise it."""

    enabled: bool = True
    """False: nobody has a persona. Ours."""
    builder: Literal["extractive", "llm"] = "extractive"
    """``extractive`` quotes the user's own feedback (ours); ``llm`` is the paper's."""
    llm: str | None = None
    """Model for ``builder = "llm"``, written as for the labeller."""
    max_statements: int = Field(default=6, ge=1, le=20)
    """Statements per persona, best supported first. Ours."""


class RewriteSection(Section):
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


class RewardSection(Section):
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


class ContrastSection(Section):
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


class FilterSection(Section):
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


class DatasetSection(Section):
    """What the data card says of pairs that leave the house."""

    title: str = "Preference pairs from users' follow-ups"
    """Heading of the card."""
    licence: str = "other"
    """Licence of the pairs, as hubs spell it (``cc-by-4.0``). It depends on your log; nobody else can know."""
    source_licences: dict[str, str] = Field(default_factory=lambda: {"wildchat": "ODC-BY 1.0"})
    """Licence of each log format's data, by `Conversation.source`."""


class UsersSection(Section):
    """How many users a run learns from."""

    max_users: int | None = Field(default=None, ge=1)
    """Use the conversations of so many users only, drawn by `seed`; anonymous conversations stay out then. The paper's
    ablation with fewer users. Smaller draws are part of larger ones. None: all, and the anonymous."""


class PairsSection(Section):
    """How pairs become training rows."""

    persona: Literal["own", "shuffled", "none"] = "own"
    """``shuffled`` puts another user's persona into each pair's prompt: a control, in which it explains nothing.
    ``none`` leaves personas out of the prompts. Controls of ours."""


class Recipe(Section):
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

"""Ask a judge through ``alpaca_eval``: its annotators, prompts, parsing and cache; any OpenAI-compatible endpoint.

``weighted_alpaca_eval_gpt4_turbo`` reads the probabilities of the answer's first token, so the endpoint must return top
log-probabilities. Where the judge says something else, the instruction is unscored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_eval_harness.alpaca.answered_by import answered_by, keep_answered_by
from rlhi_eval_harness.alpaca.clients import shared_client
from rlhi_eval_harness.alpaca.files import BASELINE, Annotation, Instruction, annotation
from rlhi_eval_harness.alpaca.package import alpaca_eval_module, as_a_guest
from rlhi_eval_harness.judge_identity import JudgeIdentity, identity_of, pin_of, refuse_aliases
from rlhi_plugin.errors import ConfigError, ModelCallError

OFFICIAL = "weighted_alpaca_eval_gpt4_turbo"
"""The annotator of the AlpacaEval 2.0 leaderboard."""


@dataclass(frozen=True)
class Judge:
    """Who judges, and where.

    Attributes:
        annotator: One that ships with ``alpaca_eval``, or the folder of another (``configs.yaml`` and its prompt).
        model: Another model than the annotator names; its verdicts are then not comparable with the leaderboard.
        base_url: Of an OpenAI-compatible endpoint, with ``/v1``; the provider's own address without it.
        api_key_variable: Environment variable that holds the key; a server that wants none may do without.
        concurrency: Calls at once, at least 1.
        retry_unscored: Ask again where an earlier call gave no readable verdict.
        require_pinned: Refuse a model whose name is an alias, before anything is asked or written.
    """

    annotator: str = OFFICIAL
    model: str | None = None
    base_url: str | None = None
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 5
    retry_unscored: bool = False
    require_pinned: bool = False

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            ConfigError: `concurrency` is below 1, or the provider's own address is asked without a key.
        """
        if self.concurrency < 1:
            raise ConfigError(f"concurrency={self.concurrency}: give at least 1.")
        if self.base_url is None and not os.environ.get(self.api_key_variable):
            raise ConfigError(f"there is no key in {self.api_key_variable}. Set it, or give --base-url of your server.")


@dataclass(frozen=True)
class Annotated:
    """What came of it.

    Attributes:
        annotations: One for each instruction.
        judge_model: Which model was asked.
        identity: Whether its name means one model for good, and which models answered.
        annotator: By whose rules.
        prompt_digest: First 16 hex digits of the SHA-256 of the judge's prompt template.
        comparable: Whether annotator and model are those of the leaderboard.
        path: The annotations as ``alpaca_eval`` writes them.
    """

    annotations: tuple[Annotation, ...]
    judge_model: str
    identity: JudgeIdentity
    annotator: str
    prompt_digest: str
    comparable: bool
    path: Path


def annotate(
    instructions: Sequence[Instruction],
    outputs: Mapping[int, str],
    judge: Judge,
    folder: Path,
    *,
    generator: str = "model",
) -> Annotated:
    """Let a judge compare a model's outputs with the baseline's; what `folder` holds from an earlier call is kept.

    Args:
        instructions: The set, with the baseline's outputs.
        outputs: The model's, by index; see `rlhi_eval_harness.alpaca.files.read_outputs`.
        judge: Who, and where.
        folder: Cache, annotations and the judge's configuration are written here.
        generator: The model's name.

    Raises:
        ConfigError: there is no such annotator, a baseline output is missing, or the judge is an alias and must not be.
        ModelCallError: the endpoint refused for good; what was annotated before is in the cache.
        MissingExtraError: alpaca_eval is not installed.
    """
    lacking = [each.index for each in instructions if not each.baseline_output]
    if lacking:
        raise ConfigError(
            f"{len(lacking)} instructions have no output of the baseline. Give a set with {BASELINE}'s outputs."
        )
    config, settings = _annotator(judge, folder)
    key = os.environ.get(judge.api_key_variable) or "none"
    failures = alpaca_eval_module("decoders.openai").openai.OpenAIError
    try:
        with as_a_guest(), shared_client(folder, api_key=key, base_url=judge.base_url) as client:
            annotator = alpaca_eval_module("annotators").PairwiseAnnotator(
                annotators_config=str(config),
                caching_path=str(folder / "cache.json"),
                is_store_missing_annotations=not judge.retry_unscored,
            )
            keep_answered_by(annotator)
            rows = annotator.annotate_head2head(
                outputs_1=[_row(each, each.baseline_output, BASELINE) for each in instructions],
                outputs_2=[_row(each, outputs[each.index], generator) for each in instructions],
                client_config_path=str(client),
                num_procs=judge.concurrency,
            )
    except failures as error:
        raise ModelCallError(
            f"{judge.base_url or 'the provider'}: {error}. Check address, key and model; run again to go on."
        ) from error
    path = folder / "annotations.json"
    path.write_text(json.dumps([_plain(row) for row in rows], ensure_ascii=False, indent=1), "utf-8")
    by_text = {str(row["instruction"]): row for row in rows}
    model = str(settings["completions_kwargs"]["model_name"])
    template = str(next(iter(annotator.annotators.values())).prompt_template)
    return Annotated(
        annotations=tuple(_read(each, by_text.get(each.text)) for each in instructions),
        judge_model=model,
        identity=identity_of(model, answered_by(rows)),
        annotator=judge.annotator,
        prompt_digest=hashlib.sha256(template.encode()).hexdigest()[:16],
        comparable=judge.annotator == OFFICIAL and judge.model is None,
        path=path,
    )


def _annotator(judge: Judge, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The annotator's folder, and its settings; a changed copy where another model is to judge."""
    import yaml

    shipped = Path(alpaca_eval_module("constants").EVALUATORS_CONFIG_DIR)
    source = next((path for path in (Path(judge.annotator), shipped / judge.annotator) if _is_annotator(path)), None)
    if source is None:
        names = sorted(path.name for path in shipped.iterdir() if _is_annotator(path))
        raise ConfigError(f"{judge.annotator} is no annotator. Give a folder with configs.yaml, or one of: {names}.")
    configs = yaml.safe_load((source / "configs.yaml").read_text("utf-8"))
    if not isinstance(configs, dict) or len(configs) != 1:
        raise ConfigError(f"{source / 'configs.yaml'} holds no single annotator. Give one with a single entry.")
    ((name, settings),) = configs.items()
    if judge.require_pinned:
        model = judge.model or str(settings["completions_kwargs"]["model_name"])
        refuse_aliases([(model, pin_of(model))])
    folder.mkdir(parents=True, exist_ok=True)
    if judge.model is None:
        return source.resolve(), settings
    settings["completions_kwargs"]["model_name"] = judge.model
    # Names that look like a completion model's would be asked through an endpoint that few servers have.
    settings["completions_kwargs"]["requires_chatml"] = True
    settings["prompt_template"] = str((source.parent / settings["prompt_template"]).resolve())
    digest = hashlib.sha256(judge.model.encode()).hexdigest()[:8]
    changed = folder.resolve() / "annotators" / f"{source.name}-{digest}"
    changed.mkdir(parents=True, exist_ok=True)
    (changed / "configs.yaml").write_text(yaml.safe_dump({f"{name}-{digest}": settings}), "utf-8")
    return changed, settings


def _is_annotator(path: Path) -> bool:
    return (path / "configs.yaml").is_file()


def _row(instruction: Instruction, output: str, generator: str) -> dict[str, str]:
    return {
        "instruction": instruction.text,
        "dataset": instruction.dataset,
        "output": output,
        "generator": generator,
    }


def _read(instruction: Instruction, row: Mapping[str, Any] | None) -> Annotation:
    if row is None:
        return Annotation(instruction.index, None, 0, 0, "no annotation of this instruction")
    return annotation(instruction.index, row)


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row that JSON can hold: no NaN."""
    return {str(key): None if value != value else value for key, value in row.items()}  # noqa: PLR0124 - NaN

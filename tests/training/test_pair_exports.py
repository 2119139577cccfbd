"""The files in which pairs leave: every trainer that is promised reads them as they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.logs import write_conversations
from rlhi_plugin.records import ChatMessage, Evidence, FollowUpLabel, Persona, PersonaStatement
from rlhi_training.pair_rows import line_of, row_of, write_pairs_parquet
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.records import Candidate, LabelledTurn, PreferencePair, ProposedPair, Provenance
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory, check_conservation, digest_path
from rlhi_training.stages.pairs import PairOrigin, render_pairs
from rlhi_training.trainer_configs import DATASET_NAME

PLAIN = "Plants like light and water, and most people give them too much of one and too little of the other."


@pytest.fixture(scope="module")
def run(tmp_path_factory, four_users, cue_labeller, word_encoder):
    """A run up to its pairs, made by the real stages with a scripted model."""

    def write(request):
        said = request.messages[-1].content.lower()
        figures = " Give it 6 hours of light and 2 cups." if any(w in said for w in ("number", "figure")) else ""
        if "bullet" in said:
            return f"- {PLAIN}\n- Turn the pot.{figures}"
        if any(word in said for word in ("short sentence", "brief", "shorter")):
            return f"Give it light and water in turn.{figures}"
        return PLAIN + figures

    folder = tmp_path_factory.mktemp("export")
    write_conversations(folder / "logs.jsonl", four_users)
    recipe = Recipe(name="test", summary="-")
    resources = Resources(recipe, policy=ScriptedClient(write), labeller=cue_labeller, encoder=word_encoder)
    directory = RunDirectory(folder / "run")
    Pipeline(folder / "logs.jsonl", recipe, directory, resources=resources, say=lambda _: None).run(until="pairs")
    return directory


def _pair(**more) -> PreferencePair:
    fields = {
        "source": "rewrite",
        "prompt": (ChatMessage(role="user", content="How?"),),
        "chosen": "So.",
        "rejected": "Not so.",
        "provenance": Provenance(
            conversation_id="c",
            turn=0,
            request_id="0",
            response_id="1",
            persona_message_ids=("x",),
            chosen_candidate="a",
            rejected_candidate="b",
        ),
    }
    return PreferencePair(**(fields | more))


TEXT = st.text(min_size=1, max_size=30).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(TEXT, min_size=1, max_size=3),
    answers=st.lists(TEXT, min_size=2, max_size=2, unique_by=str.strip),
    margin=st.floats(-5, 5),
    label=st.none() | st.sampled_from(FollowUpLabel),
)
def test_a_row_is_the_record_again(said, answers, margin, label):
    prompt = tuple(ChatMessage(role="user", content=text) for text in said)
    pair = _pair(prompt=prompt, chosen=answers[0], rejected=answers[1], margin=margin, label=label)
    line = line_of(pair)
    assert "\n" not in line
    assert line == json.dumps(row_of(pair), ensure_ascii=False)
    assert PreferencePair.model_validate_json(line) == pair
    assert json.loads(line)["pair_id"] == pair.pair_id
    assert PreferencePair.model_validate(row_of(pair)) == pair


@pytest.mark.parametrize("answer", [[], [{"role": "user", "content": "x"}], [{"role": "assistant"}], ["x"]])
def test_an_answer_that_is_no_single_message_is_refused(answer):
    with pytest.raises(ValueError, match="chosen"):
        PreferencePair.model_validate({**row_of(_pair()), "chosen": answer})


def test_both_files_hold_the_same_rows_and_datasets_reads_them(run, tmp_path):
    from datasets import load_dataset

    cache = str(tmp_path)
    by_file = {
        "parquet": load_dataset("parquet", data_files=str(run.path / "pairs.parquet"), split="train", cache_dir=cache),
        "json": load_dataset("json", data_files=str(run.path / "pairs.jsonl"), split="train", cache_dir=cache),
    }
    pairs = run.read("pairs.jsonl", PreferencePair)
    assert len(pairs) > 3
    assert by_file["parquet"].to_list() == [row_of(pair) for pair in pairs] == by_file["json"].to_list()
    # The data card tells `datasets` which of the folder's files is the data.
    assert load_dataset(str(run.path), split="train", cache_dir=cache).to_list() == by_file["parquet"].to_list()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False)), max_size=5))
def test_parquet_holds_what_the_lines_say(tmp_path_factory, rows):
    import pyarrow.parquet as pq

    path = tmp_path_factory.mktemp("parquet") / "pairs.parquet"
    pairs = [_pair(chosen=f"a{text}", rejected=f"b{text}", margin=margin, language=text) for text, margin in rows]
    write_pairs_parquet(path, pairs)
    assert pq.read_table(path).to_pylist() == [row_of(pair) for pair in pairs]


def test_equal_pairs_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_pairs_parquet(tmp_path / name, [_pair(), _pair(chosen="Perhaps.")])
    assert digest_path(tmp_path / "a") == digest_path(tmp_path / "b")
    write_pairs_parquet(tmp_path / "none", [])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_stock_trl_trains_on_the_file(run, tmp_path, tiny_model_dir):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from rlhi_adapters.loading import quiet

    rows = load_dataset("parquet", data_files=str(run.path / "pairs.parquet"), split="train", cache_dir=str(tmp_path))
    with quiet():
        arguments = DPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=2,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(tiny_model_dir),
            args=arguments,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(0.0 < loss < 5.0 for loss in losses)


def test_axolotl_finds_what_its_strategy_reads(run):
    config = _yaml((run.path / "axolotl.yml").read_text())
    (entry,) = config["datasets"]
    assert (config["rl"], entry["type"], entry["ds_type"]) == ("dpo", "chat_template.default", "json")
    roles = {name for names in entry["roles"].values() for name in names}
    for line in (run.path / entry["path"]).read_text().splitlines():
        row = json.loads(line)
        assert {m[entry["message_property_mappings"]["role"]] for m in row[entry["field_messages"]]} <= roles
        for field in ("field_chosen", "field_rejected"):
            # The strategy takes the last of a list.
            assert row[entry[field]][-1]["role"] == "assistant"


def _yaml(text):
    import yaml

    return yaml.safe_load(text)


def test_llama_factory_finds_an_alternating_prompt_and_single_messages(run):
    entry = json.loads((run.path / "dataset_info.json").read_text())[DATASET_NAME]
    columns, tags = entry["columns"], entry["tags"]
    assert (entry["formatting"], entry["ranking"]) == ("sharegpt", True)
    for line in (run.path / entry["file_name"]).read_text().splitlines():
        row = json.loads(line)
        talk = [message[tags["role_tag"]] for message in row[columns["messages"]]]
        talk = talk[1:] if talk[0] == tags["system_tag"] else talk
        assert len(talk) % 2 == 1
        assert talk == [tags["user_tag"] if i % 2 == 0 else tags["assistant_tag"] for i in range(len(talk))]
        for side in ("chosen", "rejected"):
            assert row[columns[side]] == {tags["role_tag"]: tags["assistant_tag"], "content": row[side][0]["content"]}


def test_the_data_card_counts_and_names_sources(run):
    card = (run.path / "README.md").read_text()
    pairs = run.read("pairs.jsonl", PreferencePair)
    head = _yaml(card.split("---")[1])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "pairs.parquet"}]
    assert head["license"] == "other"
    assert f"| pairs | {len(pairs)} |" in card
    for name in ("pairs.jsonl", "pairs.parquet"):
        assert digest_path(run.path / name) in card
    assert run.manifest().logs_digest in card
    assert "by cues" in card
    assert "quotations" in card or "Personas were built by" in card
    assert all(heading in card for heading in ("## Counts", "## Sources and licences", "## Screens", "## Known limits"))


def test_every_pair_leads_back_to_logged_messages(run):
    from rlhi_plugin.records import Conversation

    logged = {c.conversation_id: {m.id for m in c.messages} for c in run.read("conversations.jsonl", Conversation)}
    everything = set().union(*logged.values())
    for pair in run.read("pairs.jsonl", PreferencePair):
        origin = pair.provenance
        ids = {origin.request_id, origin.response_id, *([origin.follow_up_id] if origin.follow_up_id else [])}
        assert ids <= logged[origin.conversation_id]
        assert set(origin.persona_message_ids) <= everything
        assert bool(pair.persona_digest) == bool(origin.persona_message_ids)
        assert pair.log == "rlhi"


def _proposal(chosen, rejected, persona=None):
    def candidate(text):
        return Candidate(conversation_id="c", turn=0, text=text, origin="sample", model="m")

    sides = {"chosen": candidate(chosen), "rejected": candidate(rejected)}
    return ProposedPair(source="rewrite", conversation_id="c", turn=0, persona=persona, **sides)


@pytest.mark.parametrize(
    ("chosen", "rejected", "allowed", "reason"),
    [
        ("Mix the two.", "I'm sorry, but I cannot help with that, it is dangerous.", False, "against_refusal"),
        ("Mix the two.", "I'm sorry, but I cannot help with that, it is dangerous.", True, None),
        ("I'm sorry, but I cannot help with that.", "I will not help you with that.", False, None),
        ("I'm sorry, but I cannot help with that, it is harmful.", "Mix the two.", False, None),
        ("Shorter.", "I do not have access to real-time data, but here is much.", False, None),
    ],
)
def test_no_pair_prefers_compliance_to_a_refusal(chosen, rejected, allowed, reason):
    turn = LabelledTurn(
        conversation_id="c",
        turn=0,
        context=(ChatMessage(role="user", content="q"),),
        response="r",
        request_id="0",
        response_id="1",
    )
    result = render_pairs([_proposal(chosen, rejected)], {"c#0": turn}, PairOrigin(against_refusals=allowed))
    check_conservation("pairs", result)
    assert [drop.reason for drop in result.dropped] == ([reason] if reason else [])


@pytest.mark.parametrize(("owner", "day", "dropped"), [("ann", 4, 0), ("ann", 5, 1), ("ann", 6, 1), ("bob", 6, 0)])
def test_a_persona_later_than_its_conversation_is_dropped(conversation, owner, day, dropped):
    talk = conversation("c", ["q", "r"], user="ann", day=0)
    started = datetime(2026, 3, 5, tzinfo=UTC)
    talk = talk.model_copy(update={"started_at": started})
    said = Evidence(conversation_id="d", message_id="d-2", quote="shorter")
    persona = Persona(
        user_id=owner,
        statements=(PersonaStatement(text="Wants short answers.", evidence=(said,)),),
        covers_until=datetime(2026, 3, day, tzinfo=UTC),
        builder="test",
    )
    turn = LabelledTurn(
        conversation_id="c",
        user_id="ann",
        turn=0,
        context=(ChatMessage(role="user", content="q"),),
        response="r",
        request_id="c-0",
        response_id="c-1",
    )
    origin = PairOrigin(conversations={"c": talk})
    result = render_pairs([_proposal("one", "two", persona)], {"c#0": turn}, origin)
    check_conservation("pairs", result)
    assert [drop.reason for drop in result.dropped] == ["persona_too_late"] * dropped

"""Real WildChat conversations through ingest and label. Skipped where the data is absent."""

from __future__ import annotations

import asyncio

import pytest

from rlhi_plugin.logs import read_conversations
from rlhi_training.follow_up_table import follow_up_table
from rlhi_training.recipe import IngestSection
from rlhi_training.run_directory import check_conservation
from rlhi_training.stages.ingest import CONVERSATIONS, ingest
from rlhi_training.stages.label import FOLLOW_UPS, TURNS, label


def test_all_rows_are_used_or_dropped_with_a_reason(wildchat_path, cue_labeller):
    screened = ingest(read_conversations(wildchat_path), IngestSection())
    check_conservation("ingest", screened)
    assert screened.inputs == 400
    assert screened.passed >= 350
    conversations = screened.files[CONVERSATIONS]
    labelled = asyncio.run(label(conversations, cue_labeller, IngestSection()))
    check_conservation("label", labelled)
    assert labelled.passed > 1000
    table = follow_up_table(conversations, labelled.files[FOLLOW_UPS], "cues")
    assert table.messages + table.unlabelled == sum(m.role == "user" for c in conversations for m in c.messages)
    assert all(sum(len(m.content) for m in t.context) <= 8000 for t in labelled.files[TURNS])


@pytest.mark.slow
def test_the_embedded_labeller_on_real_follow_ups(wildchat_path, minilm):
    from rlhi_training.labelling.embedded import EmbeddedLabeller

    conversations = ingest(read_conversations(wildchat_path), IngestSection(max_conversations=40)).files[CONVERSATIONS]
    labelled = asyncio.run(label(conversations, EmbeddedLabeller(), IngestSection()))
    shares = follow_up_table(conversations, labelled.files[FOLLOW_UPS], "embedded").overall
    # The paper has 0.40, 0.27, 0.05 and 0.01. The embedded labeller sees more feedback than GPT-4o did.
    assert 0.15 < shares["new_request"] < 0.65
    assert 0.15 < shares["reattempt_with_feedback"] < 0.55
    assert shares["reattempt_without_feedback"] < 0.15
    assert shares["positive_feedback"] < 0.10

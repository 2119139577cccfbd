"""The path through Presidio: with its engine where it is installed, and with one of the same form everywhere."""

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from rlhi_plugin.errors import ConfigError, MissingExtraError
from rlhi_plugin.privacy.messages import MessageRedactor, open_redactor
from rlhi_plugin.privacy.placeholders import Scope
from rlhi_plugin.privacy.presidio import PresidioFinder, PresidioRedactor


@dataclass
class Result:
    """The fields of `presidio_analyzer.RecognizerResult` that are read."""

    entity_type: str
    start: int
    end: int
    score: float


class NameEngine:
    """`analyze` as `presidio_analyzer.AnalyzerEngine` has it, for the name Ada and for placeholders."""

    def analyze(self, *, text, language, entities, score_threshold):
        assert language == "en"
        found = [Result("PERSON", i, i + 3, 0.85) for i in range(len(text)) if text.startswith("Ada", i)]
        found += [Result("PERSON", i, len(text), 0.9) for i in [text.find("[email_")] if i >= 0]
        return [result for result in found if result.entity_type in entities and result.score >= score_threshold]


def test_names_go_with_the_base_kinds():
    redactor = PresidioRedactor(PresidioFinder(analyzer=NameEngine()))
    assert open_redactor(redactor) is redactor
    text = MessageRedactor(redactor).text("I am Ada, ada@example.com; call Ada.", Scope("t1", "u_1"))
    assert "Ada" not in text
    assert "example" not in text
    assert text.count("[person_") == 2
    assert redactor.redact(text).text == text


def test_scores_and_entities_are_passed_on():
    assert not list(PresidioFinder(analyzer=NameEngine(), min_score=0.9).find("Ada"))
    assert not list(PresidioFinder(analyzer=NameEngine(), entities=["LOCATION"]).find("Ada"))
    assert not list(PresidioFinder(analyzer=NameEngine()).find("  "))


def test_without_presidio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtraError, match=r"rlhi\[presidio\]"):
        PresidioRedactor()


def test_without_a_model_the_remedy_is_named(monkeypatch):
    module = ModuleType("presidio_analyzer")

    def engine():
        raise OSError("[E050] Can't find model 'en_core_web_lg'")

    module.AnalyzerEngine = engine
    monkeypatch.setitem(sys.modules, "presidio_analyzer", module)
    with pytest.raises(ConfigError, match="spacy download"):
        PresidioFinder()


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="min_score"):
        PresidioFinder(analyzer=NameEngine(), min_score=2)
    for entities in ([], ["person"]):
        with pytest.raises(ConfigError, match="PERSON"):
            PresidioFinder(analyzer=NameEngine(), entities=entities)


def test_the_real_engine_reads_patterns_without_a_language_model():
    presidio = pytest.importorskip(
        "presidio_analyzer", reason="presidio-analyzer is absent: pip install 'rlhi[presidio]'"
    )
    spacy = pytest.importorskip("spacy", reason="spaCy is absent: pip install 'rlhi[presidio]'")
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    engine = SpacyNlpEngine()
    engine.nlp = {"en": spacy.blank("en")}
    finder = PresidioFinder(entities=["CRYPTO"], analyzer=presidio.AnalyzerEngine(nlp_engine=engine))
    text = PresidioRedactor(finder).redact("pay to 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ now").text
    assert text.startswith("pay to [crypto_")
    assert text.endswith("] now")

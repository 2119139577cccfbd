"""The cohort prior: never fewer than k users behind a sentence, never a word of any of them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.persona.cache import PersonaCache
from rlhi_plugin.persona.cohort import LEAD, CohortPrior, build_prior
from rlhi_plugin.persona.render import FRAME_HEAD, PRIOR_HEAD, render_prior
from rlhi_plugin.persona.screen import is_safe
from rlhi_plugin.persona.wishes import canned, read_wishes
from rlhi_plugin.records import Evidence, Persona, PersonaStatement
from rlhi_plugin.stores import open_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = [
    "Shorter, please.", "Keep it brief.", "More detail, please.", "Use bullet points.", "No emojis.", "Add emojis",
    "Answer in French please", "I am Agnes from Ghent", "Add numbers please and mention Ghent",
    "Shorter, and no emojis",
]  # fmt: skip
WISHES = [canned(wish) for text in TEXTS for wish in read_wishes(text)]


def persona(user, *texts):
    statements = tuple(
        PersonaStatement(
            text=t, evidence=(Evidence(conversation_id=f"c-{user}", message_id="m", quote=t, said_at=NOW),)
        )
        for t in texts
    )
    return Persona(user_id=user, statements=statements, builder="test")


def test_k_users_share_it():
    four = [persona(f"u_{i}", "Shorter, please.") for i in range(4)]
    assert build_prior("app", four).sentences == ()
    five = [*four, persona("u_4", "Keep it brief next time.")]
    assert build_prior("app", five).sentences == ("Prefers short answers.",)


def test_one_user_counts_once():
    one = persona("u_1", *["Shorter, please."] * 9)
    assert build_prior("app", [one] * 9).sentences == ()


def test_a_divided_cohort_says_nothing():
    divided = [persona(f"u_{i}", "Shorter, please." if i % 2 else "More detail, please.") for i in range(12)]
    assert build_prior("app", divided).sentences == ()


def test_no_words_of_users_cross():
    cohort = [persona(f"u_{i}", "Add numbers please and mention Ghent", "I am Agnes from Ghent") for i in range(9)]
    prior = build_prior("app", cohort)
    assert prior.sentences == ("Likes numbers and figures.",)
    assert "ghent" not in (prior.to_json() + render_prior(prior.sentences)).casefold()
    assert "u_" not in prior.to_json()


def test_languages_stay_out():
    assert build_prior("app", [persona(f"u_{i}", "Answer in French please") for i in range(9)]).sentences == ()


COHORT = st.lists(st.lists(st.sampled_from(TEXTS), max_size=4), min_size=1, max_size=14)


def supporters(sentence, cohort):
    return {p.user_id for p in cohort for s in p.statements for wish in read_wishes(s.text) if canned(wish) == sentence}


@settings(max_examples=200, deadline=None)
@given(texts=COHORT, k=st.integers(2, 6), leaving=st.integers(0, 13))
def test_without_any_one_user_only_what_stood_at_the_threshold_changes(texts, k, leaving):
    cohort = [persona(f"u_{i}", *some) for i, some in enumerate(texts)]
    prior = build_prior("app", cohort, k=k, max_sentences=99)
    for sentence in prior.sentences:
        assert sentence in WISHES, "a sentence of ours, word for word"
        assert len(supporters(sentence, cohort)) >= k
    rest = [p for p in cohort if p.user_id != f"u_{leaving}"]
    without = build_prior("app", rest, k=k, max_sentences=99)
    for sentence in set(prior.sentences) - set(without.sentences):
        (wish,) = read_wishes(sentence)
        topic, _, sign = wish.partition(":")
        against = len(supporters(canned(f"{topic}:{'-' if sign == '+' else '+'}"), cohort))
        for_it = len(supporters(sentence, cohort))
        assert f"u_{leaving}" in supporters(sentence, cohort)
        assert for_it == k or for_it < LEAD * (against + 1)
    for sentence in set(without.sentences) - set(prior.sentences):
        # Nobody's leaving adds a sentence, but that of somebody who spoke against it.
        (wish,) = read_wishes(sentence)
        topic, _, sign = wish.partition(":")
        assert f"u_{leaving}" in supporters(canned(f"{topic}:{'-' if sign == '+' else '+'}"), cohort)


def test_a_new_user_gets_the_prior_and_nobody_elses_persona(tmp_path):
    prior = CohortPrior(cohort="app", sentences=("Prefers short answers.",), k=5)
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.put_persona(persona("u_known", "I am Agnes from Ghent"))
        store.put_persona(persona("u_empty"))
        cache = PersonaCache(store, prior=prior)
        new = cache.get("t1", "u_new")
        assert new.text.startswith(PRIOR_HEAD)
        assert FRAME_HEAD not in new.text, "it does not claim that the user said so"
        assert (new.digest, new.statements) == (prior.digest, ())
        assert "Agnes" in cache.get("t2", "u_known").text
        # Whoever has a persona has spoken, or has removed everything on purpose.
        assert cache.get("t3", "u_empty") is None
        assert PersonaCache(store).get("t1", "u_new") is None, "it is opt-in"


def test_a_failing_store_gives_nothing(caplog):
    class Broken:
        def get_persona(self, user_id):
            raise StoreError("no. Check the disk.")

        def put_persona(self, persona): ...

    prior = CohortPrior(cohort="app", sentences=("Prefers short answers.",), k=5)
    assert PersonaCache(Broken(), prior=prior).get("t", "u_1") is None
    assert "goes without" in caplog.text


def test_a_rendered_prior_is_never_read_back():
    assert not is_safe(render_prior(("Prefers short answers.",)))
    assert render_prior(()) == ""


@pytest.mark.parametrize("wrong", [{"k": 1}, {"max_sentences": 0}])
def test_wrong_options(wrong):
    with pytest.raises(ConfigError, match="k >= 2"):
        build_prior("app", [], **wrong)

"""What the screen says cannot be there is not there: detectors find the same with it as without it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.privacy import credentials, personal
from rlhi_plugin.privacy.patterns import PatternFinder
from rlhi_plugin.privacy.redaction import DEFAULT_KINDS, KINDS, Span, SpanRedactor
from rlhi_plugin.privacy.screening import LONG_RUN, Shape, has_long_run, is_plain, shape

FINDER = PatternFinder(KINDS)
PRIVATE = (
    "jane@example.org", "4111 1111 1111 1111", "3782-822463-10005", "GB29 NWBK 6016 1331 9268 19", "078-05-1120",
    "social security 078 05 1120", "tel. 030 901820", "+44 20 7946 0958", "(415) 555-2671", "93.184.216.34",
    "2606:2800:220:1:248:1893:25c8:1946", "a4:83:e7:2f:1b:9c", "AA-BB-CC-DD-EE-FF", "AKIAIOSFODNN7EXAMPLQ",
    "sk-" + "proj-" + "aB3d" * 8, "xoxb-1234567890", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.abc", "hf_" + "aB3d" * 9,
    "Bearer abcdefgh12345678", "authorization: basic dXNlcjox", "password = hunter2!", 'pwd: "open sesame"',
    "https://user:geheim7@host/x", "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
    "api_key=abcd1234efgh5678",
    "mail=ab%40ex.org", "pwd%3Dhunter2!", "mon mot de passe est hunter2!",
    "hooks.slack.com/services/T00/B00/abcdefghij1234567890", "secret: abcdefghijklmno1", "passphrase is correct7horse",
)  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(PRIVATE),
    st.sampled_from(
        [" ", "\n", ".", "-", ":", ": ", "=", "1", "12", "1.2", "20", "ab", "Key", "is", "é", "\u2009", "@"]
    ),
    st.text(max_size=6),
)


@pytest.fixture(scope="module")
def everything_looked_at():
    """Findings of the same detectors when nothing is ruled out beforehand."""
    everywhere = Shape(*[True] * len(Shape.__dataclass_fields__))

    def find(text):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(personal, "shape", lambda _: everywhere)
            patch.setattr(credentials, "has_long_run", lambda _: True)
            return list(FINDER.find(text))

    return find


@settings(max_examples=400, deadline=None)
@given(text=st.lists(PIECES, max_size=8).map("".join))
def test_nothing_is_missed(everything_looked_at, text):
    assert list(FINDER.find(text)) == everything_looked_at(text)


@settings(max_examples=1000, deadline=None)
@given(text=st.lists(PIECES, max_size=8).map("".join))
def test_what_is_spared_holds_nothing(everything_looked_at, text):
    if is_plain(text):
        assert [span for span in everything_looked_at(text) if span.kind in DEFAULT_KINDS] == []


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("2345aAbBgGlL0 .-:()+", max_size=24),
    word=st.sampled_from(["", "ssn ", "call me ", "phone: ", "ip "]),
)
def test_numbers_of_every_form_are_spared_only_where_nothing_is_found(everything_looked_at, text, word):
    if is_plain(word + text):
        assert [span for span in everything_looked_at(word + text) if span.kind in DEFAULT_KINDS] == []


def test_prose_and_numbers_that_are_nobodys_are_spared():
    assert is_plain("")
    assert is_plain("In 1905 he wrote 4 papers, at 26; see chapter 2.1 - and the compass of his father, 10:30.")
    assert not is_plain("Ein Satz \u00fcber nichts: ü")


@pytest.mark.parametrize(
    "hint", sorted({hint for pattern in credentials.PATTERNS if pattern.short for hint in pattern.hints})
)
def test_no_hint_of_a_short_secret_is_spared(hint):
    assert not is_plain(f"It says {hint.upper()} there.")


@pytest.mark.parametrize("secret", PRIVATE)
def test_none_of_them_is_spared(secret):
    assert not is_plain(secret)
    assert not is_plain(f"It says {secret} there.")


def test_kinds_that_are_only_on_request_are_looked_for():
    redactor = SpanRedactor(PatternFinder(["url"]))
    assert redactor.redact("See www.example.com/a now.").counts == {"url": 1}


@pytest.mark.parametrize("secret", PRIVATE)
def test_each_is_found_in_prose(secret):
    assert all(isinstance(span, Span) for span in FINDER.find(f"It says {secret} there."))
    assert list(FINDER.find(f"It says {secret} there."))


def test_prose_with_a_year_needs_no_detector():
    assert shape("In 1905, 3 papers: well-known. See 2.1-3.") == Shape(digit=True)
    assert shape("No digit at all: fade-in.") == Shape()
    assert has_long_run("x" * LONG_RUN)
    assert not has_long_run(f"{'x' * (LONG_RUN - 1)} {'y' * (LONG_RUN - 1)}")

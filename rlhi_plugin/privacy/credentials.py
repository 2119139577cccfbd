"""Secrets of well-known shapes: keys of services, tokens, private keys, passwords.

The shapes are those that the services document or that their keys have had for years. A pattern runs only where one of
its hints occurs, so a text without any costs microseconds. `detect-secrets` was tried instead: 5.6 ms for a kilobyte,
and no rule for Anthropic, Google or Hugging Face.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlhi_plugin.privacy.folding import Folded
from rlhi_plugin.privacy.redaction import Span
from rlhi_plugin.privacy.screening import has_long_run

_LEFT = r"(?<![a-z0-9])"
# Bounded, like all that could look far ahead from many places of a hostile text.
_HAS_DIGIT = r"(?=[a-z_\-]{0,80}\d)"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One shape.

    Attributes:
        kind: Of the spans that it finds.
        hints: Lower-case; where none of them occurs, there is nothing to find.
        regex: The span is its group ``value`` where it has one, else the whole match.
        accept: Whether a match is really one; None accepts all.
        short: Whether it can be without a run of `LONG_RUN` characters of a key.
        bare: Whether it stands without quotes, so that a piece of a program there is none.
    """

    kind: str
    hints: tuple[str, ...]
    regex: re.Pattern[str]
    accept: Callable[[re.Match[str]], bool] | None = None
    short: bool = False
    bare: bool = False


_Accept = Callable[[re.Match[str]], bool]


def _pattern(
    kind: str,
    hints: str | tuple[str, ...],
    regex: str,
    accept: _Accept | None = None,
    *,
    short: bool = False,
    bare: bool = False,
) -> Pattern:
    hints = tuple(hints.split()) if isinstance(hints, str) else hints
    return Pattern(kind, hints, re.compile(regex, re.IGNORECASE), accept, short, bare)


_AWS = re.compile(r"aws|secret|access.?key|AKIA|ASIA", re.IGNORECASE)
_AWS_REACH = 120
"""Characters before a secret key in which its name or its access key must stand."""


def _is_aws_secret(match: re.Match[str]) -> bool:
    """Upper, lower and digits, near its name: forty hex digits are a commit, not a key."""
    value = match["value"]
    is_mixed = any(map(str.isupper, value)) and any(map(str.islower, value)) and any(map(str.isdigit, value))
    before = match.string[max(0, match.start() - _AWS_REACH) : match.start()]
    return is_mixed and _AWS.search(before) is not None


_SAMPLE = re.compile(
    r"""<.*>|\[.*\]|\{.*\}|\(.*\)|[x*.\-_?#]+|%\S*|\$.*|/.*|your.*|[a-z_\ ]*passw(?:or)?d[a-z_\ :]*
    |none|null|nil|true|false|str(?:ing)?|text|secret|undefined|example.*|changeme|required|optional|hidden
    |redacted|.*env[.(\[].*|.*\.get.*""",
    re.IGNORECASE | re.VERBOSE,
)
"""What stands where a secret would: names, blanks, calls, types."""

_SYMBOL = re.compile(r"[!@#^&*~]")
# A name, and then a bracket or an attribute. What stands between a name and a later bracket, such as a closing quote,
# makes it something else; so does one colon, a dash, or a dot before a digit.
_NAMES = r"[\w$]+(?:(?:\.|::)[a-z_$][\w$]*)*"
_CODE = re.compile(rf"(?:{_NAMES})?[(\[{{]|(?=[\w$]+\.){_NAMES}$", re.IGNORECASE)
_ENDS = ".,;:)"
"""Ends of a clause, which are not part of the word before them."""


def _is_no_sample(match: re.Match[str]) -> bool:
    return _SAMPLE.fullmatch(match["value"]) is None


def _is_quoted_password(match: re.Match[str]) -> bool:
    """Not a sample, and not a sentence about passwords."""
    return _is_no_sample(match) and match["value"].strip().count(" ") <= 1


def _is_bare_password(match: re.Match[str]) -> bool:
    """Whether an unquoted word after ``password`` is one, and not prose; `Pattern.bare` says what code is."""
    value = match["value"].rstrip(_ENDS)
    if _SAMPLE.fullmatch(value):
        return False
    if (any(map(str.isdigit, value)) and any(map(str.isalpha, value))) or _SYMBOL.search(value):
        return True
    # A plain word is a password only where nothing but a setting looks like that.
    after = match.string[match.end("value") : match.end("value") + 40]
    return match["sign"] == "=" and re.match(r"[&\s]|$|;\s*\w[\w ]*=", after) is not None


def _is_key_value(match: re.Match[str]) -> bool:
    value = match["value"]
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and _is_no_sample(match)


_NAME = r"(?:pass(?:word|wd|phrase|code)|passwort|mot de passe|pwd)"
_NAME_HINTS = ("passw", "passp", "passc", "de passe", "pwd")
_IS = "(?:is|ist|est|es|lautet)"
_QUOTE = r"""\\*["']"""

PATTERNS = (
    # OpenAI, Anthropic, OpenRouter and others who took over the prefix.
    _pattern(
        "api_key",
        "sk-",
        rf"{_LEFT}sk-(?:(?:ant|proj|svcacct|admin|or|lf)-{_HAS_DIGIT}[a-z0-9_\-]{{20,}}|{_HAS_DIGIT}[a-z0-9]{{20,}})",
    ),
    _pattern("api_key", "akia asia abia acca", rf"{_LEFT}(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}(?![A-Z0-9])"),
    _pattern(
        "api_key",
        "aws secret access akia asia",
        r"(?<![a-z0-9/+])(?P<value>[a-z0-9/+]{40})(?![a-z0-9/+=])",
        _is_aws_secret,
    ),
    _pattern("api_key", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[a-z0-9]{36,255}"),
    _pattern("api_key", "github_pat_", r"github_pat_[a-z0-9_]{22,255}"),
    _pattern("api_key", "glpat-", r"glpat-[a-z0-9_\-]{20,}"),
    _pattern("api_key", "xox", r"xox[abeoprs]-[a-z0-9\-]{10,}"),
    _pattern("api_key", "xapp-", r"xapp-\d-[a-z0-9\-]{20,}"),
    _pattern("api_key", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows)/(?P<value>[a-z0-9_/]{20,})"),
    _pattern("api_key", ":aa", r"(?<![a-z0-9])\d{8,10}:AA[a-z0-9_\-]{33}(?![a-z0-9_\-])"),
    _pattern("api_key", "aiza", r"AIza[a-z0-9_\-]{35}"),
    _pattern("api_key", "ya29.", r"ya29\.[a-z0-9_\-]{20,}"),
    _pattern("api_key", "gocspx-", r"GOCSPX-[a-z0-9_\-]{28}"),
    _pattern("api_key", "_live_ _test_", rf"{_LEFT}[srp]k_(?:live|test)_[a-z0-9]{{16,}}"),
    _pattern("api_key", "whsec_", r"whsec_[a-z0-9+/=]{24,}"),
    _pattern("api_key", "hf_", rf"{_LEFT}hf_[a-z0-9]{{30,}}"),
    _pattern("api_key", "npm_", rf"{_LEFT}npm_[a-z0-9]{{36}}"),
    _pattern("api_key", "pypi-", r"pypi-AgE[a-z0-9_\-]{50,}"),
    _pattern("api_key", "gsk_", rf"{_LEFT}gsk_[a-z0-9]{{40,}}"),
    _pattern("api_key", "sg.", rf"{_LEFT}SG\.[a-z0-9_\-]{{22}}\.[a-z0-9_\-]{{43}}"),
    _pattern(
        "api_key",
        "key token secret",
        rf"(?:(?:api|access|account|secret|private|auth|encryption)[ _\-]?(?:key|token)|client[_\-]?secret|secret)"
        rf"(?:{_QUOTE})?\s{{0,3}}(?:[=:]|is)\s{{0,3}}(?:{_QUOTE})?(?P<value>[a-z0-9_\-./+]{{16,}}=*)",
        _is_key_value,
    ),
    _pattern("jwt", "eyj", r"(?<![a-z0-9_\-])eyJ[a-z0-9_\-]{15,}\.[a-z0-9_\-]{8,}(?:\.[a-z0-9_\-]*){0,3}"),
    _pattern(
        "private_key",
        "-----begin",
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:(?!-----)[\s\S]){0,20000}-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"|[a-z0-9+/=\s\\:,]*)",
        short=True,
    ),
    _pattern("bearer_token", "bearer", rf"\bbearer\s{{1,3}}(?P<value>{_HAS_DIGIT}[a-z0-9._~+/\-]{{16,}}=*)"),
    _pattern(
        "bearer_token",
        "authorization",
        rf"authorization(?:{_QUOTE})?\s{{0,3}}[:=]\s{{0,3}}(?:{_QUOTE})?(?:basic|token|bearer)\s{{1,3}}"
        r"(?P<value>[a-z0-9._~+/\-]{8,}=*)",
        short=True,
    ),
    # scheme://user:password@host
    _pattern(
        "password",
        "://",
        r"[a-z][a-z0-9+.\-]{1,20}://[^\s/:@\"'<>\[\]]{0,64}:(?P<value>[^\s/@\"'<>\[\]{}$]{1,128})@",
        _is_no_sample,
        short=True,
    ),
    _pattern(
        "password",
        _NAME_HINTS,
        rf"{_NAME}(?:{_QUOTE})?\s{{0,3}}(?:=|:){{1,3}}\s{{0,3}}\\*(?P<quote>[\"'`])"
        r"(?P<value>(?:(?!\\*(?P=quote))[^\n]){4,128})\\*(?P=quote)",
        _is_quoted_password,
        short=True,
    ),
    _pattern(
        "password",
        _NAME_HINTS,
        rf"{_NAME}(?:{_QUOTE}|\*\*)?(?P<sign>\s{{0,3}}(?:=|:){{1,2}}(?:\*\*)?\s{{0,3}}|\s{{1,3}}{_IS}:?\s{{1,3}})"
        r"(?P<value>[^\s\"'<>,;&\[\]|`]{4,128})",
        _is_bare_password,
        short=True,
        bare=True,
    ),
)


_MARKS = ("_", "-", "pass", ":")
"""Parts of many hints that most texts do not hold: one look for them spares looking for each hint."""


class CredentialFinder:
    """Finds secrets in folded text."""

    def __init__(self, kinds: frozenset[str]) -> None:
        patterns = tuple(pattern for pattern in PATTERNS if pattern.kind in kinds)
        self._all = _Patterns(patterns)
        self._short = _Patterns(tuple(pattern for pattern in patterns if pattern.short))

    def find(self, folded: Folded) -> Iterator[Span]:
        """The spans of `Folded.text` that hold secrets."""
        text = folded.text
        for pattern in (self._all if has_long_run(text) else self._short).hinted(text.lower()):
            for match in pattern.regex.finditer(text):
                start, end = match.span("value" if "value" in pattern.regex.groupindex else 0)
                if pattern.bare and _CODE.match(folded.before_marks(start, end).rstrip(_ENDS)):
                    continue
                if pattern.accept is None or pattern.accept(match):
                    yield Span(start, end, pattern.kind)


class _Patterns:
    """Patterns by their hints."""

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        self._patterns = patterns
        hints = sorted({hint for pattern in patterns for hint in pattern.hints})
        self._hints = [(hint, next((mark for mark in _MARKS if mark in hint), "")) for hint in hints]

    def hinted(self, lowered: str) -> list[Pattern]:
        """Those that could find something."""
        marks = {"", *(mark for mark in _MARKS if mark in lowered)}
        hints = {hint for hint, mark in self._hints if mark in marks and hint in lowered}
        return [pattern for pattern in self._patterns if not hints.isdisjoint(pattern.hints)] if hints else []

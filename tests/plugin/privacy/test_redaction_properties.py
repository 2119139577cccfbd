"""Secrets of every kind never survive, in whatever text; everything else stays as it was."""

import base64
import json
import re
import sys
import unicodedata

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlhi_plugin.privacy.folding import fold
from rlhi_plugin.privacy.iban import _LENGTH_OF, has_check_digits
from rlhi_plugin.privacy.messages import MessageRedactor
from rlhi_plugin.privacy.patterns import PatternFinder
from rlhi_plugin.privacy.personal import _ISSUER, _RESOLVERS, has_luhn_digit
from rlhi_plugin.privacy.placeholders import NO_SCOPE, PLACEHOLDER, Placeholders
from rlhi_plugin.privacy.redaction import DEFAULT_KINDS, SpanRedactor

PLACEHOLDERS = Placeholders(key=b"0123456789abcdef")
REDACTOR = SpanRedactor(PatternFinder(), placeholders=PLACEHOLDERS)


def matching(pattern):
    return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)


def with_check_digit(digits):
    return next(digits + last for last in "0123456789" if has_luhn_digit(digits + last))


def spaced(digits, sizes, separator):
    groups, start = [], 0
    for size in sizes:
        groups.append(digits[start : start + size])
        start += size
    return separator.join(groups)


SEPARATORS = st.sampled_from(["", " ", "-"])
VISA = st.builds(
    lambda body, sep: spaced(with_check_digit("4" + body), (4, 4, 4, 4), sep), matching("[0-9]{14}"), SEPARATORS
)
MASTERCARD = st.builds(
    lambda body, sep: spaced(with_check_digit("55" + body), (4, 4, 4, 4), sep), matching("[0-9]{13}"), SEPARATORS
)
AMEX = st.builds(
    lambda body, sep: spaced(with_check_digit("37" + body), (4, 6, 5), sep), matching("[0-9]{12}"), SEPARATORS
)


def iban(country, body, separator):
    compact = next(
        f"{country}{check:02d}{body}" for check in range(2, 99) if has_check_digits(f"{country}{check:02d}{body}")
    )
    return separator.join(compact[i : i + 4] for i in range(0, len(compact), 4))


IBAN = st.sampled_from(sorted(_LENGTH_OF)).flatmap(
    lambda c: st.builds(iban, st.just(c), matching(f"[0-9]{{{_LENGTH_OF[c] - 4}}}"), st.sampled_from(["", " "]))
)
PHONE = st.builds(
    lambda region, form, i: phonenumbers.format_number(
        phonenumbers.parse(
            str(phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE).national_number)[:-3]
            + f"{i:03d}",
            region,
        ),
        form,
    ),
    st.sampled_from(["US", "GB", "DE", "FR", "IN", "BR", "JP", "NG", "ZA"]),
    st.sampled_from([phonenumbers.PhoneNumberFormat.E164, phonenumbers.PhoneNumberFormat.INTERNATIONAL]),
    st.integers(0, 999),
).filter(lambda number: phonenumbers.is_valid_number(phonenumbers.parse(number, None)))
US_PHONE = st.builds(
    lambda area, line, form: form.format(area, line),
    st.sampled_from(["415", "212", "303", "650"]),
    matching("[2-9][02-9][0-9]-[0-9]{4}"),
    st.sampled_from(["({}) {}", "{}-{}", "{} {}"]),
).filter(lambda number: phonenumbers.is_valid_number(phonenumbers.parse(number, "US")))
# An address like 1.2.3.4 is a version to everybody, so the generated ones have a first number above that.
IP = st.builds(
    lambda a, b, c, d: f"{a}.{b}.{c}.{d}",
    st.sampled_from([34, 52, 77, 81, 93, 142, 151, 185, 213]),
    *[st.integers(0, 255)] * 3,
).filter(lambda ip: ip not in _RESOLVERS)
BODY = "[A-Za-z0-9]"

KEYS = {
    "openai": rf"sk-[0-9]{BODY}{{30,40}}",
    "openai project": r"sk-proj-[0-9][A-Za-z0-9_\-]{30,60}",
    "anthropic": r"sk-ant-api03-[0-9][A-Za-z0-9_\-]{40,60}",
    "aws": r"AKIA[A-Z0-9]{16}",
    "github": rf"gh[pousr]_{BODY}{{36}}",
    "github fine-grained": r"github_pat_[A-Za-z0-9_]{60,82}",
    "gitlab": r"glpat-[A-Za-z0-9_\-]{20}",
    "slack": r"xox[bpa]-[0-9]{10,12}-[0-9]{10,12}-[A-Za-z0-9]{24}",
    "google": r"AIza[A-Za-z0-9_\-]{35}",
    "google oauth": r"ya29\.[A-Za-z0-9_\-]{40,60}",
    "stripe": rf"[sr]k_(live|test)_{BODY}{{24}}",
    "hugging face": r"hf_[A-Za-z]{34}",
    "npm": rf"npm_{BODY}{{36}}",
    "groq": rf"gsk_{BODY}{{52}}",
    "sendgrid": r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}",
}

ANY_CASE = {
    "email": matching(
        r"[a-z0-9]([a-z0-9._%+\-]{0,20}[a-z0-9])?@[a-z0-9]([a-z0-9\-]{0,12}[a-z0-9])?\.(com|org|de|io|co\.uk)"
    ),
    "iban": IBAN,
    "mac_address": matching(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}").filter(lambda m: len(set(m)) > 2),
    **{f"api_key {name}": matching(pattern) for name, pattern in KEYS.items()},
}
AS_IT_IS = {
    "credit_card": st.one_of(VISA, MASTERCARD, AMEX),
    "phone": st.one_of(PHONE, US_PHONE),
    "us_ssn": matching(r"(00[1-9]|[1-578][0-9]{2})-(0[1-9]|[1-9][0-9])-(000[1-9]|[1-9][0-9]{3})"),
    "ip": IP,
    "jwt": matching(r"eyJ[A-Za-z0-9_\-]{20,40}\.eyJ[A-Za-z0-9_\-]{10,60}\.[A-Za-z0-9_\-]{43}"),
    "private_key": matching(
        r"-----BEGIN (RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE KEY-----\n([A-Za-z0-9+/]{20,64}\n){1,4}"
        r"-----END \1?PRIVATE KEY-----"
    ),
}
# What is secret only because of what stands before it: the lead is not.
LED = {
    "bearer_token": ("Bearer ", matching(rf"[0-9]{BODY}{{20,60}}")),
    "basic": ("Authorization: Basic ", matching(rf"{BODY}{{16,60}}")),
    "aws secret": ("aws_secret_access_key = ", matching(r"aB3[A-Za-z0-9/+]{37}")),
    "password=": ("password=", matching(r"Zq7[A-Za-z0-9!#^*]{4,20}")),
    "passwd:": ("passwd: ", matching(r"Zq7[A-Za-z0-9!#^*]{4,20}")),
    "my password is": ("my password is ", matching(r"Zq7[A-Za-z0-9!#^*]{4,20}")),
    "quoted": ('"Password": "', matching(r"Zq[A-Za-z0-9 ]{1}[A-Za-z0-9!#$%^*()]{4,20}")),
    "url": ("postgres://bob:", matching(r"Zq7[A-Za-z0-9!#^*]{4,20}")),
    "key=": ("api_key=", matching(rf"q7{BODY}{{20,40}}")),
    "named key": ('secretKey": "', matching(rf"q7{BODY}{{20,40}}")),
    "client secret": ("client_secret: ", matching(rf"q7{BODY}{{20,40}}")),
}
AFTER = {"quoted": '"', "url": "@db.internal/app"}

EVERY = {
    **{name: st.tuples(st.just(""), s, st.just("")) for name, s in {**ANY_CASE, **AS_IT_IS}.items()},
    **{name: st.tuples(st.just(lead), s, st.just(AFTER.get(name, ""))) for name, (lead, s) in LED.items()},
}

# Arbitrary text must not run on into the secret, which would then be another word.
ANYTHING = st.text(max_size=60)
EDGES = st.sampled_from([" ", "\n", "\t", '"', " (", "\uff0c", "\uff1a", ", ", "\r\n", "\u201c"])
UNSEEN = st.sampled_from(["\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad"])


def bare(text):
    """What a reader could still copy out: letters and digits, without separators and odd forms."""
    return re.sub(r"[^a-z0-9]", "", PLACEHOLDER.sub(" ", fold(text).text).lower())


def assert_gone(secret, text, redactor=REDACTOR):
    result = redactor.redact(text)
    assert bare(secret) not in bare(result.text), result.text
    assert secret not in result.text
    assert sum(result.counts.values()) >= 1
    assert redactor.redact(result.text).text == result.text
    return result.text


@st.composite
def placed(draw, name):
    lead, secret, after = draw(EVERY[name])
    if name in ANY_CASE:
        secret = draw(st.sampled_from([str, str.upper, str.lower]))(secret)
    before = draw(st.one_of(st.just(""), st.builds(lambda t, e: t + e, ANYTHING, EDGES)))
    behind = draw(st.one_of(st.just(""), st.builds(lambda t, e: e + t, ANYTHING, EDGES)))
    if name == "ip":
        before += "from "
    return secret, before + lead, after + behind


@pytest.mark.parametrize("name", sorted(EVERY))
def test_no_secret_survives_in_any_text(name):
    # A wide colon is folded to one that code may hold.
    @example(("Zq70000", "password=", "\uff1a7("))
    @example(("Zq70000", "my password is ", "\uff0e0{"))
    @settings(max_examples=40, deadline=None)
    @given(placed(name))
    def check(drawn):
        secret, before, behind = drawn
        assert_gone(secret, before + secret + behind)

    check()


@pytest.mark.parametrize("lead", ["password=", "passwd: ", "my password is "])
@pytest.mark.parametrize(
    "behind",
    [
        *("\u201c0{", "\uff0c7(", "\u3002x[1]", "\u2026a.b", "\u300d0.x"),
        *("\uff1a7(", "\uff1aa.b", "\uff1a(", "\uff0e7(", "\uff0e(", "\u2014x[1]", "\uff0d{"),
        *("\uff0ea", "\uff0ea.b", "\uff0ea(", "\uff1a\uff1aa", "\uff1a\uff1aa(", "\uff1a\uff1aa.b["),
    ],
)
def test_a_password_before_wide_punctuation_and_what_looks_like_code(lead, behind):
    assert_gone("Zq70000", f"{lead}Zq70000{behind}")


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("name", sorted(EVERY))
def test_base64_hides_nothing(name, encode):
    @settings(max_examples=10, deadline=None)
    @given(placed(name))
    def check(drawn):
        secret, before, behind = drawn
        # Control characters make a text one of bytes.
        said = re.sub(r"[^\t\n -~]", "?", f"{before}{secret}{behind}")
        if REDACTOR.redact(said).counts and len(said) > 18:
            run = encode(said.encode()).decode()
            text = REDACTOR.redact(json.dumps({"of": run, "n": 1})).text
            assert run.rstrip("=") not in text
            assert json.loads(text)["n"] == 1

    check()


@pytest.mark.parametrize("run", ["SomeVeryLongCamelCaseIdentifierName", "bm90aGluZyBwcml2YXRlIGluIGhlcmU=", "a" * 64])
def test_base64_of_nothing_private_stays(run):
    assert REDACTOR.redact(run).text is run


@pytest.mark.parametrize(
    "lead",
    [
        *(
            "Пароль: ",
            "мой пароль - Пароль=",
            "我的密码是",
            "密码\uff1a",
            "密碼: ",
            "パスワードは",
            "パスワード\uff1a",
            "비밀번호는 ",
        ),
        *("mi contraseña es ", "Contraseña: ", "mon mot de passe est ", "Mot de passe : ", "mein Passwort ist "),
        *("hasło: ", "Şifre: ", "كلمة المرور: ", "סיסמה: ", "पासवर्ड: ", "mật khẩu: "),
    ],
)
def test_a_password_in_other_languages(lead):
    text = f"Hallo 你好. {lead}Zq70000!, ну и 好."
    assert (
        assert_gone("Zq70000!", text)
        == f"Hallo 你好. {lead}{PLACEHOLDERS.of('password', 'Zq70000!', NO_SCOPE)}, ну и 好."
    )


@pytest.mark.parametrize("lead", ["电话", "電話: ", "手机号是", "телефон ", "Teléfono: ", "móvil ", "전화 ", "هاتف "])
def test_a_telephone_in_other_languages(lead):
    assert_gone("13812345678", f"{lead}13812345678\uff0c谢谢")


@pytest.mark.parametrize("name", sorted(EVERY))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_secret_survives_in_json(name, ascii_only):
    @settings(max_examples=15, deadline=None)
    @given(placed(name))
    def check(drawn):
        secret, before, behind = drawn
        text = json.dumps({"result": [before + secret + behind]}, ensure_ascii=ascii_only)
        done = REDACTOR.redact(text).text
        assert bare(secret) not in bare(done)
        assert secret not in done

    check()


# A password may be any characters, so one with a space in it is another password.
@pytest.mark.parametrize("name", sorted(set(EVERY) - {"quoted"}))
def test_unseen_characters_hide_nothing(name):
    @settings(max_examples=15, deadline=None)
    @given(placed(name), st.integers(1, 10_000), UNSEEN)
    def check(drawn, place, unseen):
        secret, before, behind = drawn
        cut = 1 + place % (len(secret) - 1)
        hidden = secret[:cut] + unseen + secret[cut:]
        done = REDACTOR.redact(before + hidden + behind).text
        assert bare(secret) not in bare(done)

    check()


@pytest.mark.parametrize("name", ["credit_card", "phone", "iban", "us_ssn", "email", "ip"])
def test_look_alikes_hide_nothing(name):
    wide = {ord(c): ord(c) + 0xFEE0 for c in "0123456789@.abcdefghijklmnopqrstuvwxyz"}
    odd = [
        str.maketrans(" ", "\u2009"),
        str.maketrans(" ", "\u00a0"),
        str.maketrans("-", "\u2011"),
        str.maketrans("-", "\u2013"),
        wide,
        str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"),
    ]

    @settings(max_examples=40, deadline=None)
    @given(placed(name), st.sampled_from(odd))
    def check(drawn, table):
        secret, before, behind = drawn
        done = REDACTOR.redact(before + secret.translate(table) + behind).text
        assert bare(secret) not in bare(done)

    check()


@pytest.mark.parametrize("name", sorted(EVERY))
def test_the_seam_between_two_blocks_hides_nothing(name):
    @settings(max_examples=15, deadline=None)
    @given(placed(name), st.integers(1, 10_000))
    def check(drawn, place):
        secret, before, behind = drawn
        cut = len(before) + 1 + place % (len(secret) - 1)
        whole = before + secret + behind
        parts = MessageRedactor(REDACTOR).texts([whole[:cut], whole[cut:]])
        assert len(parts) == 2
        assert bare(secret) not in bare("".join(parts))

    check()


@pytest.mark.parametrize(
    "code", ["cfg2.password", "std::getenv1(x)", "self.x1.y", "os1.environ[k]", "$this1.p(", "load_2(path)", "a1.b2()"]
)
def test_code_that_reads_a_password_is_none(code):
    text = f"password: {code}"
    assert REDACTOR.redact(text).text is text


WORDS = st.text(alphabet=st.characters(exclude_categories=("Nd", "Cs"), exclude_characters="@=:-_\ufdd0"), max_size=300)


@settings(max_examples=150, deadline=None)
@given(WORDS)
def test_words_stay_as_they_are(text):
    result = REDACTOR.redact(text)
    assert result.text is text
    assert result.counts == {}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=40), *[placed(name).map("".join) for name in sorted(EVERY)]), max_size=4))
def test_redacting_twice_changes_nothing(parts):
    once = REDACTOR.redact("".join(parts)).text
    assert REDACTOR.redact(once).text == once


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_taken_also_half_characters(text):
    REDACTOR.redact(text + "\ud800 4111 \udfff" + text)


def test_every_kind_has_a_generator():
    tested = {name.split()[0].rstrip("=:") for name in EVERY} | {"password"}
    assert set(DEFAULT_KINDS) <= tested


def test_the_generators_make_what_they_say():
    assert _ISSUER.fullmatch("4111111111111111")
    assert has_luhn_digit("4111111111111111")
    assert not has_luhn_digit("4111111111111112")
    assert has_check_digits("DE89370400440532013000")
    assert not has_check_digits("DE88370400440532013000")


def test_digits_of_every_script_are_read():
    digits = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.decimal(c, None) is not None]
    assert [fold(digit).text for digit in digits] == [str(unicodedata.decimal(digit)) for digit in digits]

"""What looks like a secret and is none stays readable."""

import json
import os
from pathlib import Path

import pytest

HARMLESS = [
    "version 1.2.3.4, v10.0.19041.1, Chrome/91.0.4472.124 and 4.18.0.553",
    "pip install torch==2.13.0.1 numpy>=1.26.4",
    "see section 4.2.1.3, then 12:34:56 on 2023-10-12 14:05:33",
    "prices: $1,200,500.50, 1 234 567,89 EUR and 4999.99",
    "pi is 3.14159265358979323846 and 0.4111111111111111",
    "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 fixes it",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "fingerprint 16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
    "ping 127.0.0.1, 192.168.0.1, 10.0.0.255, 0.0.0.0, 255.255.255.0, 8.8.8.8",
    "std::vector<int> a::b; std::size_t x = 0x7fffffff;",
    "@app.route('/x')\n@property\ndef f(self): ...",
    "git clone git@github.com:octo/cat.git; use icon@2x.png",
    "password = getpass()\npassword=password, pwd=os.environ['PWD']",
    "password: str = Field(...)\nif password == user.password: pass",
    '{"password": "string", "token": "your_token_here"}',
    "Enter your password: ********",
    "The password must have 8-20 characters. What is a strong password?",
    "const apiKey = process.env.API_KEY; api_key = <YOUR_API_KEY>",
    "max_tokens: 4096, tokenizer.eos_token_id = 50256",
    "the disk-1234567890 and task-0987654321abcdefghij12345 are ready",
    "bearer bonds and the bearer of bad news",
    "order 1234567890, timestamp 1612345678, id 20231012140533",
    "1990-2005, 555 555, 100 200 300 400 500",
    "call 1-800-273-8255 or 911",
    "ISBN 978-3-16-148410-0, EAN 4006381333931",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
    "x = [4111, 1111, 1111, 1112]; y = 1234 5678 9012 3456",
    "GB82 TEST and DE12 is a grade; A4 paper, B2B",
    "https://example.com/a?b=c&page=2#top and http://localhost:8080/x",
    "C:\\new\\table\\u0041bc",
    "e.g. a@b, @someone on x",
    "le mot de passe est obligatoire; Das Passwort ist vergessen; la contraseña es corta",
    "你的密码是什么\uff1f密码必须包含数字。",
    "パスワードは安全です",
    "50%20 of 100%40, 20 % off, and %2Bx",
    "**Password:** ********, `password: str`, password:****",
    "passengers passed the passes",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_it_stays(redactor, text):
    assert redactor.redact(text).text is text


REAL = [
    ("write to bob@example.org.", {"email": 1}),
    ("(415) 555-2671 or +44 20 7946 0958", {"phone": 2}),
    ("Tel: 030 901820", {"phone": 1}),
    ("4111 1111 1111 1111 exp 12/27", {"credit_card": 1}),
    ("1234 4111 1111 1111 1111", {"credit_card": 1}),
    ("GB82 WEST 1234 5698 7654 32 please", {"iban": 1}),
    ("SSN 123 45 6789", {"us_ssn": 1}),
    ("blocked 52.95.110.1 and 2a01:4f8:10a:1::2", {"ip": 2}),
    ("my ip is 1.2.3.4", {"ip": 1}),
    ("Server=db;Password=hunterx;User Id=sa", {"password": 1}),
    ("https://x.org/login?user=a&password=hunterx&b=1", {"password": 1}),
    ("电话:13800138000", {"phone": 1}),
    ("13800138000", {}),
    ("**Password:** hunter2, **Password**: hunter3, password: `open sesame`", {"password": 3}),
    ("AccountName=x;AccountKey=abcdefghijkl0123456789+/==;EndpointSuffix=x", {"api_key": 1}),
    ("bot 123456789:AAF1234567890abcdefghijklmnopqrstuv", {"api_key": 1}),
    ("GET /x?mail=jane.roe%40example.com&n=2", {"email": 1}),
    ("call%20me%20on%20%2B442079460958", {"phone": 1}),
    ("pwd%3DZq70000!", {"password": 1}),
    ("phone 13800138000", {"phone": 1}),
    ("hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx", {"api_key": 1}),
    ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh", {"private_key": 1}),
]


@pytest.mark.parametrize(("text", "counts"), REAL)
def test_it_goes(redactor, text, counts):
    assert dict(redactor.redact(text).counts) == counts


HOSTILE = [
    "YWFhYWFhYWFhYWFhYWFhYWFhYWFh,", "password=Zq7\uff0e", "\u5bc6\u7801", "\u7535\u8bdd1", "de passe ",
    "eyJ", "sk-", "bearer ", "password=", 'password="', "a@", "a.b@", "a.", "1234 ", "1", "://",
    "a://b:", "ab:",
    "DE89 ",
    "-----BEGIN PRIVATE KEY-----", "akia", "\u200b1", "\\n", "[email_", "1.2.3.", "api_key:", "-", "A", "2a01:",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_no_text_takes_for_ever(redactor, piece):
    # A pattern that looked to the end from every place would need an hour for one of these.
    redactor.redact(piece * (1_000_000 // len(piece)))


def real_messages():
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
    path = root / "wildchat" / "wildchat_dev.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent: set RLHI_TEST_DATA to the folder of real data")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [turn["content"] for row in rows for turn in row["conversation"]]


def test_real_conversations_are_hardly_touched(redactor):
    # WildChat's authors removed personal data already, so nearly everything that is found there is a mistake.
    messages = real_messages()
    found = [redactor.redact(text).counts for text in messages]
    touched = sum(1 for counts in found if counts)
    assert len(messages) > 3000
    assert touched <= 10, f"{touched} of {len(messages)} messages were redacted"
    assert touched >= 1

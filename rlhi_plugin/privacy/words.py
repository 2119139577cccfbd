"""What other languages call a password and a telephone, where they are not written in ASCII.

Detectors read folded text (`rlhi_plugin.privacy.folding`), in which nothing is left of such a word: it is folded to the
English one. As they are written most; no list of this kind is whole.
"""

from __future__ import annotations

import re

_SPELT = {
    "password": (
        *("пароль", "Пароль", "密码", "密碼", "口令", "パスワード", "暗証番号", "비밀번호"),
        *("contraseña", "Contraseña", "hasło", "Hasło", "şifre", "Şifre", "mật khẩu", "Mật khẩu"),
        *("كلمة المرور", "كلمة السر", "סיסמה", "पासवर्ड"),
    ),
    "phone": (
        *("телефон", "Телефон", "电话", "電話", "手机", "手機", "携帯", "전화", "휴대폰"),
        *("teléfono", "Teléfono", "téléphone", "Téléphone", "móvil", "Móvil"),
        *("هاتف", "جوال", "טלפון", "फ़ोन"),
    ),
}
_ENGLISH = {word: english for english, words in _SPELT.items() for word in words}
_JOINS = "是为為は는은"
"""What joins such a word to its value, without a space between them."""

WORD = rf"(?P<word>{'|'.join(_ENGLISH)})[{_JOINS}]?"
"""A word, and what joins it."""


def has_word(text: str) -> bool:
    """Whether one of the words is in a text."""
    return any(word in text for word in _ENGLISH)


def english(match: re.Match[str]) -> str:
    """The English word for a match of `WORD`, then a colon for what joins it, else a space: its value may follow."""
    return _ENGLISH[match["word"]] + (":" if match.end() > match.end("word") else " ")

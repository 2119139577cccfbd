"""Words of a text, also where its script puts no space between them.

Chinese, Japanese, Thai, Lao, Burmese and Khmer are written without spaces between words. Where words are compared, each
character of theirs is a word; where words are counted, it is half of one (ours).
"""

from __future__ import annotations

import re

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
ALONE = re.compile(f"[{_UNSPACED}]")
"""A character that stands alone."""
_SPACED = re.compile(r"\w+")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """What is left of a text without spaces and punctuation; characters of scripts without spaces stand alone."""
    return (_SPACED if text.isascii() else _WORD).findall(text)

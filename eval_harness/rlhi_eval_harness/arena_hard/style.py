"""The style of an answer, as far as Arena-Hard controls for it: length in tokens, headers, list items, bold text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from rlhi_plugin.errors import ConfigError, MissingExtraError

_CODE = re.compile(r"```([^`]*)```")
_HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
_ORDERED = re.compile(r"^\s*\d+\.\s", re.MULTILINE)
_UNORDERED = re.compile(r"^\s*[-*+]\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*")
_BOLD_UNDERSCORES = re.compile(r"__[^_\n]+__")


@dataclass(frozen=True)
class Style:
    """What an answer looks like.

    Attributes:
        tokens: Its length.
        headers: Markdown headers of any level.
        list_items: Of numbered and bulleted lists.
        bold: Bold passages.
    """

    tokens: int
    headers: int
    list_items: int
    bold: int

    @classmethod
    def of(cls, text: str, count_tokens: Callable[[str], int]) -> Self:
        """Count, as upstream does: what stands in code blocks is no markdown, but has length."""
        prose = text
        for block in _CODE.findall(text):
            prose = prose.replace(block, "")
        return cls(
            tokens=count_tokens(text),
            headers=len(_HEADER.findall(prose)),
            # Apart, for an item of one kind may swallow the blank line before an item of the other.
            list_items=len(_ORDERED.findall(prose)) + len(_UNORDERED.findall(prose)),
            bold=len(_BOLD.findall(prose)) + len(_BOLD_UNDERSCORES.findall(prose)),
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """The style as it is published beside an answer: ``token_len``, and counts by kind.

        Raises:
            ConfigError: a count is missing.
        """
        try:
            return cls(
                tokens=int(metadata["token_len"]),
                headers=_total(metadata["header_count"]),
                list_items=_total(metadata["list_count"]),
                bold=_total(metadata["bold_count"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the answer's style metadata lacks {error}. Remove it, and it is counted.") from error


def tiktoken_counter(encoding: str = "o200k_base") -> Callable[[str], int]:
    """Counts tokens as upstream does: with the encoding of gpt-4o.

    Raises:
        MissingExtraError: tiktoken is not installed.
        ConfigError: the encoding cannot be had; tiktoken fetches it once.
    """
    try:
        import tiktoken
    except ImportError as error:
        raise MissingExtraError("tiktoken", "eval") from error
    try:
        found = tiktoken.get_encoding(encoding)
    except Exception as error:
        raise ConfigError(
            f"the token encoding {encoding} cannot be had ({type(error).__name__}). Set TIKTOKEN_CACHE_DIR to a folder "
            "that holds it, or give answers with their metadata.token_len."
        ) from error
    return lambda text: len(found.encode(text, disallowed_special=()))


def _total(counts: Any) -> int:
    return sum(int(value) for value in counts.values()) if isinstance(counts, Mapping) else int(counts)

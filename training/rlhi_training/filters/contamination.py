"""Whether a training pair holds an evaluation prompt: overlap of word n-grams, as in Tulu 3 (arXiv 2411.15124).

A pair is contaminated when half of an evaluation prompt's words are found in the text of one of its messages, in runs
of at least eight words that also occur in the prompt. A prompt shorter than eight words counts only when it is the
whole message. Words are compared without case and punctuation; where a script puts no spaces between them, each
character is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.words import words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENDINGS = (".jsonl", ".json", ".txt")
_PROMPT_FIELDS = ("instruction", "prompt", "question", "turns", "problem", "query", "input")
"""Where AlpacaEval, Arena-Hard, MT-Bench and the usual benchmarks keep what they ask."""
_BASE = 1_000_003
_UNKNOWN = -1


class EvaluationPrompts:
    """An index of evaluation prompts by n-gram.

    Args:
        prompts: Their texts.
        ngram: Words in an n-gram.
        share: Share of a prompt's words that must be found, in (0, 1].
    """

    def __init__(self, prompts: Iterable[str], *, ngram: int = 8, share: float = 0.5) -> None:
        import numpy as np

        self._ngram, self._share = ngram, share
        self._ids: dict[str, int] = {}
        self._short: set[tuple[str, ...]] = set()
        self._lengths: list[int] = []
        self._texts: list[str] = []
        hashes, documents, places = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for text in dict.fromkeys(prompts):
            words = _words(text)
            if len(words) < ngram:
                if words:
                    self._short.add(tuple(words))
                continue
            grams = self._hash(np.array([self._ids.setdefault(word, len(self._ids)) for word in words]))
            hashes.append(grams)
            documents.append(np.full(len(grams), len(self._lengths)))
            places.append(np.arange(len(grams)))
            self._lengths.append(len(words))
            self._texts.append(text)
        table = np.concatenate(hashes)
        order = np.argsort(table, kind="stable")
        self._table = table[order]
        self._documents = np.concatenate(documents)[order]
        self._places = np.concatenate(places)[order]

    def __len__(self) -> int:
        """How many different prompts."""
        return len(self._lengths) + len(self._short)

    def found_in(self, text: str) -> str | None:
        """The evaluation prompt that a text holds most of (its first 80 characters), or None."""
        import numpy as np

        words = _words(text)
        if len(words) < self._ngram:
            return " ".join(words) if tuple(words) in self._short else None
        ids = np.array([self._ids.get(word, _UNKNOWN) for word in words])
        known = np.lib.stride_tricks.sliding_window_view(ids, self._ngram).min(axis=1) != _UNKNOWN
        grams = self._hash(ids)[known]
        first = np.searchsorted(self._table, grams, side="left")
        last = np.searchsorted(self._table, grams, side="right")
        if not (last > first).any():
            return None
        return self._best(first[last > first], last[last > first])

    def _best(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> str | None:
        """Of the prompts with hits, the one most of whose words are covered, if that is enough."""
        import numpy as np

        hits = np.unique(np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)]))
        best, covered_most = None, 0.0
        for document in np.unique(self._documents[hits]):
            covered = np.zeros(self._lengths[document], dtype=np.bool_)
            for place in self._places[hits][self._documents[hits] == document]:
                covered[place : place + self._ngram] = True
            if covered.mean() > max(covered_most, self._share - 1e-9):
                best, covered_most = self._texts[document], float(covered.mean())
        return best[:80] if best is not None else None

    def _hash(self, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Polynomial hashes, modulo 2^64, of every n-gram of word ids."""
        import numpy as np

        windows = np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64) + np.uint64(1), self._ngram)
        powers = np.array([pow(_BASE, k, 2**64) for k in range(self._ngram)], dtype=np.uint64)
        hashes: NDArray[np.uint64] = (windows * powers).sum(axis=1, dtype=np.uint64)
        return hashes


def evaluation_files(paths: Sequence[str]) -> list[Path]:
    """The files behind files and folders, sorted.

    Raises:
        ConfigError: a path does not exist, or a folder holds no file that can be read.
    """
    found: list[Path] = []
    for name in paths:
        path = Path(name).expanduser()
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _ENDINGS and p.is_file())
        if not files:
            raise ConfigError(
                f"filter.evaluation_prompts: {path} is no file and no folder of {', '.join(_ENDINGS)}. Check it."
            )
        found += files
    return found


def read_prompts(paths: Sequence[str]) -> Iterator[str]:
    """The prompts in evaluation files: JSON objects by the usual field names, or one prompt per text file.

    Model outputs and judgements that stand beside the prompts in the same folder have no such fields, and give nothing.

    Raises:
        ConfigError: a file cannot be read, or none of them holds a prompt.
    """
    count = 0
    for path in evaluation_files(paths):
        try:
            text = path.read_text("utf-8")
            if path.suffix == ".txt":
                rows: list[Any] = [{"prompt": text}]
            elif path.suffix == ".jsonl":
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            else:
                loaded = json.loads(text)
                rows = loaded if isinstance(loaded, list) else [loaded]
        except (OSError, ValueError) as error:
            raise ConfigError(f"filter.evaluation_prompts: cannot read {path}: {error}. Check the file.") from error
        for row in rows:
            for prompt in _prompts_of(row):
                count += 1
                yield prompt
    if not count:
        fields = ", ".join(_PROMPT_FIELDS)
        raise ConfigError(f"filter.evaluation_prompts: no prompt found in {', '.join(paths)}. Looked for: {fields}")


def _prompts_of(row: Any) -> Iterator[str]:
    """Strings under the prompt fields of one row; of Arena-Hard's and MT-Bench's turns, each one."""
    if isinstance(row, str):
        yield row
    if not isinstance(row, dict):
        return
    for name in _PROMPT_FIELDS:
        value = row.get(name)
        for part in value if isinstance(value, list) else [value]:
            text = part.get("content") if isinstance(part, dict) else part
            if isinstance(text, str) and text.strip():
                yield text


def _words(text: str) -> list[str]:
    return words_of(text.casefold())

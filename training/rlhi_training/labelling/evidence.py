"""Which of the user's words decided a label: the clause that speaks most for it, verbatim.

The linear model's weights say how much each word adds to the label; the clause with the largest sum is quoted. The
encoder has no such weights for words, so its quotations come from the same place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUpLabel
from rlhi_training.labelling.decision import CLASSES
from rlhi_training.labelling.linear import LinearModel

_CLAUSE = re.compile(r"[^.!?\n;\u3002\uff01\uff1f]+(?:[.!?\u3002\uff01\uff1f]+(?!\w))*")
_READ = 1500
"""Characters of a follow-up that are searched; behind them is pasted material."""
_MAX_CLAUSES = 12
_MAX_CHARS = 200
_TELLING = (FollowUpLabel.WITH_FEEDBACK, FollowUpLabel.POSITIVE_FEEDBACK)


def evidence(exchanges: Sequence[Exchange], labels: Sequence[FollowUpLabel], model: LinearModel) -> list[str | None]:
    """A quotation for each exchange; None where the label says that nothing telling was said.

    Whitespace around a clause is left out; what is returned stands in the follow-up character by character.
    """
    clauses = [
        _clauses(exchange.follow_up) if label in _TELLING else []
        for exchange, label in zip(exchanges, labels, strict=True)
    ]
    asked = [(i, clause) for i, found in enumerate(clauses) if len(found) > 1 for clause in found]
    best: dict[int, tuple[float, str]] = {}
    if asked:
        from rlhi_training.labelling.features import clause_terms

        rows = model.term_scores([clause_terms(clause) for _, clause in asked])
        for (i, clause), row in zip(asked, rows, strict=True):
            wanted = CLASSES.index(labels[i])
            score = float(row[wanted] - row[CLASSES.index(FollowUpLabel.NEW_REQUEST)])
            if i not in best or score > best[i][0]:
                best[i] = (score, clause)
    return [best[i][1] if i in best else (found[0] if found else None) for i, found in enumerate(clauses)]


def _clauses(text: str) -> list[str]:
    found = [clause for m in _CLAUSE.finditer(text[:_READ]) if (clause := m[0].strip())]
    return [clause[:_MAX_CHARS].rstrip() for clause in found[:_MAX_CLAUSES]] or (
        [text.strip()[:_MAX_CHARS]] if text.strip() else []
    )

"""Labels for many follow-ups, of which a model may refuse some: one that has no label costs no other one its label."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.errors import ModelCallError, ProviderUnavailableError
from rlhi_plugin.labelling import Exchange, Labeller
from rlhi_plugin.records import FollowUp

TOGETHER = 128
"""Follow-ups that a labeller is given at once (ours)."""
_HOPELESS = 16
"""So many failures without a single label are the model's and not the texts' (ours)."""

Labelled = FollowUp | ModelCallError
"""A label, or why there is none."""


def batches_at_once(labeller: Labeller) -> int:
    """How many times `TOGETHER` a labeller is given at once: one more than its model has room for, if it asks one.

    So that the last answers of one batch are not waited for with nothing else under way.
    """
    return 1 + -(-int(getattr(labeller, "at_once", 0)) // TOGETHER)


async def label_all(exchanges: Sequence[Exchange], labeller: Labeller) -> list[Labelled]:
    """For each exchange its label, or the error of the model that could not give it.

    A labeller without ``label_each`` whose batch fails is asked about each of it alone.

    Raises:
        ProviderUnavailableError: no call can succeed as things are.
        BudgetReachedError: the next call could cost more than is left.
    """
    label_each = getattr(labeller, "label_each", None)
    if label_each is not None:
        apart: list[Labelled] = await label_each(exchanges)
        return apart
    try:
        return list(await labeller.label(exchanges))
    except ProviderUnavailableError:
        raise
    except ModelCallError as error:
        if len(exchanges) == 1:
            return [error]

    async def alone(exchange: Exchange) -> Labelled:
        (found,) = await label_all([exchange], labeller)
        return found

    return await each(exchanges, alone, at_once=TOGETHER)


def give_up(found: Sequence[Labelled], *, part: bool = False) -> None:
    """Stop where nothing could be labelled.

    Args:
        found: What `label_all` said so far.
        part: These are some of many: only a number of failures says that the others would fail, too.

    Raises:
        ModelCallError: the last failure.
    """
    failures = [one for one in found if isinstance(one, ModelCallError)]
    if failures and len(failures) == len(found) and (len(failures) >= _HOPELESS or not part):
        raise ModelCallError(f"no follow-up at all could be labelled. The last: {failures[-1]}") from failures[-1]

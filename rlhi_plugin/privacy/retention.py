"""How long what users said is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Purpose


class Purgeable(Protocol):
    """Deletes what is old, and knows whose there is."""

    def purge(self, *, before: datetime, user_id: str | None = None) -> int:
        """Delete what is from before a time; how many messages that were."""
        ...

    def user_ids(self) -> list[str]:
        """Pseudonyms of all users with a conversation."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Days for which messages and feedback are kept, and the persona of a user who has said nothing since.

    Attributes:
        days: For everybody's, anonymous ones included.
        days_without: For users who do not allow a purpose, by purpose; at most `days`. ``{Purpose.TRAIN: 30}``
            keeps what may never be trained on only as long as personas need it.

    Raises:
        ConfigError: not a positive number of days, no purpose, or longer than `days`.
    """

    days: int
    days_without: Mapping[Purpose, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for days in (self.days, *self.days_without.values()):
            if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= self.days:
                raise ConfigError(f"{days!r} is no retention. Give a whole number, 1 to days={self.days}.")
        for name in self.days_without:
            if name not in tuple(Purpose):
                raise ConfigError(f"{name!r} is not a purpose. Choose from: {', '.join(Purpose)}.")


def apply_retention(
    store: Purgeable,
    retention: Retention,
    *,
    allows: Callable[[str | None, Purpose], bool] | None = None,
    now: datetime | None = None,
) -> int:
    """Delete what has been kept long enough.

    Args:
        store: Where it is.
        retention: How long.
        allows: `ConsentCache.allows`; needed for `Retention.days_without`.
        now: Aware time from which the days count back; the present one unless given.

    Returns:
        How many messages were deleted.

    Raises:
        ConfigError: consent is needed and was not given, or `now` has no time zone.
        StoreError: the store cannot be written.
    """
    if retention.days_without and allows is None:
        raise ConfigError("days_without= asks who allows what. Pass allows=ConsentCache(store, policy).allows.")
    present = datetime.now(UTC) if now is None else now
    if present.tzinfo is None:
        raise ConfigError("now= has no time zone. Give an aware time, such as datetime.now(UTC).")
    deleted = store.purge(before=present - timedelta(days=retention.days))
    for name, days in retention.days_without.items():
        for user_id in store.user_ids():
            if allows is not None and not allows(user_id, Purpose(name)):
                deleted += store.purge(before=present - timedelta(days=days), user_id=user_id)
    return deleted

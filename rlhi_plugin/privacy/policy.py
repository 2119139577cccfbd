"""What is allowed of users who have not decided: what the app says, else the environment, else everything.

The command line has no app to ask. So that `rlhi persona build` and `rlhi export` go by the same rules as the app, both
read them from the environment: ``RLHI_CONSENT`` lists the purposes that are allowed, or says ``none``;
``RLHI_CONSENT_ANONYMOUS`` the same for users without an id, for whom the first one counts without it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import Purpose

_log = logging.getLogger("rlhi.privacy")

VARIABLE = "RLHI_CONSENT"
ANONYMOUS_VARIABLE = "RLHI_CONSENT_ANONYMOUS"
NOTHING = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentPolicy:
    """What is allowed of users who have not decided.

    Attributes:
        default: For users with an id; a purpose that is left out is not allowed.
        anonymous: For those without, who cannot decide; they never have a persona.

    Raises:
        ConfigError: something that is no purpose.
    """

    default: Mapping[Purpose, bool]
    anonymous: Mapping[Purpose, bool]

    def __init__(
        self,
        *,
        default: Mapping[Purpose | str, bool] | None = None,
        anonymous: Mapping[Purpose | str, bool] | None = None,
    ) -> None:
        every = dict.fromkeys(Purpose, True)
        object.__setattr__(self, "default", _purposes(every if default is None else default))
        given = self.default if anonymous is None else _purposes(anonymous)
        object.__setattr__(self, "anonymous", {**given, Purpose.PERSONALISE: False})

    def allows(self, purpose: Purpose, *, anonymous: bool = False) -> bool:
        """Whether the policy allows one purpose."""
        rules = self.anonymous if anonymous else self.default
        return rules[Purpose.LOG] and rules[purpose]

    def describe(self) -> str:
        """One line for people: ``log yes, personalise yes, train no; anonymous: ...``."""
        return f"{_line(self.default)}; anonymous users: {_line(self.anonymous)}"


def default_policy() -> ConsentPolicy:
    """The policy of the environment; all is allowed where that says nothing.

    Raises:
        ConfigError: a variable names something that is no purpose.
    """
    return ConsentPolicy(default=_from_environment(VARIABLE), anonymous=_from_environment(ANONYMOUS_VARIABLE))


def announce(policy: ConsentPolicy) -> None:
    """Say what is done without a decision, once for each policy in a process.

    On the logger ``rlhi.privacy``; on stderr where nobody has set logging up, or not to show that much.
    """
    line = policy.describe()
    with _announced_lock:
        if line in _announced:
            return
        _announced.add(line)
    said = f"consent of users who have not decided: {line} (change it with consent=ConsentPolicy(...) or {VARIABLE})"
    if _log.isEnabledFor(logging.INFO) and _log.hasHandlers():
        _log.info(said)
    else:
        sys.stderr.write(f"rlhi: {said}\n")


_announced: set[str] = set()
_announced_lock = threading.Lock()


def _purposes(given: Mapping[Purpose | str, bool] | Mapping[Purpose, bool]) -> dict[Purpose, bool]:
    rules = dict.fromkeys(Purpose, False)
    for name, granted in given.items():
        try:
            purpose = Purpose(name)
        except ValueError:
            raise ConfigError(f"{name!r} is not a purpose. Choose from: {', '.join(Purpose)}.") from None
        if not isinstance(granted, bool):
            raise ConfigError(f"{name}={granted!r} is neither allowed nor refused. Give True or False.")
        rules[purpose] = granted
    return rules


def _line(rules: Mapping[Purpose, bool]) -> str:
    return ", ".join(f"{purpose} {'yes' if rules[Purpose.LOG] and rules[purpose] else 'no'}" for purpose in Purpose)


def _from_environment(variable: str) -> dict[Purpose | str, bool] | None:
    given = os.environ.get(variable)
    if given is None:
        return None
    names = [name.strip().lower() for name in given.split(",")]
    if names == [NOTHING]:
        return {}
    unknown = [name for name in names if name not in list(Purpose)]
    if unknown:
        raise ConfigError(
            f"{variable}={given!r} names {unknown[0]!r}, which is no purpose. Set it to some of {','.join(Purpose)}, "
            f"or to {NOTHING}."
        )
    return {Purpose(name): True for name in names}

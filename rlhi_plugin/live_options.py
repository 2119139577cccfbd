"""The options of the live half, checked at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhi_plugin.durability import Durability
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.building import BuilderOption, checked_building
from rlhi_plugin.persona.cohort import CohortPrior
from rlhi_plugin.persona.gate import GateMode
from rlhi_plugin.privacy.messages import RedactOption
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.privacy.vault import Vault
from rlhi_plugin.stores import PersonaStore

PersonaMode = Literal["inject", "shadow", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveOptions:
    """Options of the live half. `RLHIMiddleware` explains each of them.

    Raises:
        ConfigError: one of them cannot work.
    """

    persona: PersonaMode = "inject"
    persona_store: PersonaStore | None = None
    persona_max_age_s: float = 60.0
    persona_gate: GateMode | str = GateMode.OFF
    persona_prior: CohortPrior | None = None
    persona_builder: BuilderOption = None
    commands: bool = False
    durability: Durability = "sync"
    journal: str | Path | None = "auto"
    store_timeout_s: float = 2.0
    redact: RedactOption = "default"
    vault: Vault | None = None
    consent: ConsentPolicy | None = None

    def __post_init__(self) -> None:
        if self.persona not in ("inject", "shadow", "off"):
            raise ConfigError(f"persona={self.persona!r} is not a mode. Choose 'inject', 'shadow' or 'off'.")
        if self.persona_max_age_s < 0:
            raise ConfigError(f"persona_max_age_s={self.persona_max_age_s} is negative. Give seconds, 0 or more.")
        if self.persona_gate not in list(GateMode):
            modes = ", ".join(repr(str(mode)) for mode in GateMode)
            raise ConfigError(f"persona_gate={self.persona_gate!r} is not a mode. Choose one of {modes}.")
        if self.persona == "off" and self.persona_builder is not None:
            raise ConfigError("persona='off' uses no personas. Leave persona_builder out, or build with 'shadow'.")
        # Found out now, and not when the first user has spoken.
        checked_building(self.persona_builder)
        if self.consent is not None and not isinstance(self.consent, ConsentPolicy):
            raise ConfigError(f"consent={self.consent!r} is no policy. Pass ConsentPolicy(default={{'train': False}}).")

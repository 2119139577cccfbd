"""What every store must do, as functions that anyone can run on theirs.

    from rlhi_plugin.stores.conformance import CONVERSATION_CHECKS

    @pytest.mark.parametrize("check", CONVERSATION_CHECKS, ids=lambda check: check.__name__)
    def test_my_store(check, tmp_path):
        check(lambda: MyStore(tmp_path / "store"))

Each check gets a function that opens one and the same storage, empty at the first call. A check that does not hold
raises `ConformanceError`, an `AssertionError`. There is one tuple of checks for each protocol; those in
`FORGETTING_CHECKS` need a store that has all five.
"""

from rlhi_plugin.stores.conformance.consent import CONSENT_CHECKS
from rlhi_plugin.stores.conformance.conversations import CONVERSATION_CHECKS
from rlhi_plugin.stores.conformance.expecting import ConformanceError
from rlhi_plugin.stores.conformance.feedback import FEEDBACK_CHECKS
from rlhi_plugin.stores.conformance.forgetting import FORGETTING_CHECKS
from rlhi_plugin.stores.conformance.personas import PERSONA_CHECKS

__all__ = [
    "CONSENT_CHECKS",
    "CONVERSATION_CHECKS",
    "FEEDBACK_CHECKS",
    "FORGETTING_CHECKS",
    "PERSONA_CHECKS",
    "ConformanceError",
]

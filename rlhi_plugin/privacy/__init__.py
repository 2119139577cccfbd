"""Redaction before storing, consent before using, and forgetting for good.

==================================================  ================================================================
file                                                job
==================================================  ================================================================
`redaction.py`                                      what a redactor is; spans into placeholders
`placeholders.py`, `vault.py`                       what stands for a value; the value, encrypted, for the app alone
`patterns.py`, `folding.py`, `encoded.py`           the base detectors; text as they read it, also in base64
`personal.py`, `phone.py`, `iban.py`,               one detector each
`credentials.py`, `presidio.py`
`messages.py`                                       redaction of whole messages: blocks, tool arguments, results
`policy.py`, `consent.py`, `retention.py`            who allows what, asked or not; how long things are kept
`exclusions.py`                                     conversations that nothing may be learned from
`forgetting.py`, `journals.py`, `traces.py`         deleting a user here and in files; naming what learned from them
`tombstones.py`                                     keeping a forgotten user out of logs, imports and training
`protocols.py`, `commands.py`                       what a store must do; the commands
==================================================  ================================================================
"""

from rlhi_plugin.privacy.consent import ConsentCache, for_purpose, since_last_request
from rlhi_plugin.privacy.exclusions import exclusions_in, without_excluded
from rlhi_plugin.privacy.forgetting import Forgetting, Places, forget_user
from rlhi_plugin.privacy.messages import MessageRedactor, RedactOption, open_redactor
from rlhi_plugin.privacy.placeholders import Scope
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.privacy.redaction import DEFAULT_KINDS, KINDS, Redacted, Redactor, Span, SpanRedactor
from rlhi_plugin.privacy.retention import Retention, apply_retention
from rlhi_plugin.privacy.tombstones import append_tombstones, read_tombstones, without_forgotten
from rlhi_plugin.privacy.vault import FernetVault, unredact

__all__ = [
    "DEFAULT_KINDS",
    "KINDS",
    "ConsentCache",
    "ConsentPolicy",
    "FernetVault",
    "Forgetting",
    "MessageRedactor",
    "Places",
    "RedactOption",
    "Redacted",
    "Redactor",
    "Retention",
    "Scope",
    "Span",
    "SpanRedactor",
    "append_tombstones",
    "apply_retention",
    "exclusions_in",
    "for_purpose",
    "forget_user",
    "open_redactor",
    "read_tombstones",
    "since_last_request",
    "unredact",
    "without_excluded",
    "without_forgotten",
]

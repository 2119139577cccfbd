"""Where conversations, personas, feedback and consent are kept: small protocols, and one implementation on SQL.

    with open_store("sqlite:///rlhi.db") as store:
        for conversation in store.conversations():
            ...

A store of your own needs no common class: write the methods of `ConversationStore` and `PersonaStore`, and those of
`FeedbackStore`, `ConsentStore` and `ForgettingStore` where you want what they do, and run
`rlhi_plugin.stores.conformance` against it.
"""

from rlhi_plugin.stores.address import display_url
from rlhi_plugin.stores.protocols import (
    BeginningStore,
    ConsentStore,
    ConversationStore,
    FeedbackStore,
    ForgettingStore,
    Forgotten,
    PersonaStore,
    Submitted,
    SubmittingStore,
)
from rlhi_plugin.stores.sql_store import SQLStore, StoreCounts, open_store

__all__ = [
    "BeginningStore",
    "ConsentStore",
    "ConversationStore",
    "FeedbackStore",
    "ForgettingStore",
    "Forgotten",
    "PersonaStore",
    "SQLStore",
    "StoreCounts",
    "Submitted",
    "SubmittingStore",
    "display_url",
    "open_store",
]

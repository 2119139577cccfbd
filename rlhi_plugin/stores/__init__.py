"""Where conversations and personas are kept: two small protocols, and one implementation on SQL.

    with open_store("sqlite:///rlhi.db") as store:
        for conversation in store.conversations():
            ...

A store of your own needs no base class: write the methods of `ConversationStore` and `PersonaStore`, and run
`rlhi_plugin.stores.conformance` against it.
"""

from rlhi_plugin.stores.protocols import ConversationStore, PersonaStore
from rlhi_plugin.stores.sql_store import SQLStore, StoreCounts, open_store

__all__ = ["ConversationStore", "PersonaStore", "SQLStore", "StoreCounts", "open_store"]

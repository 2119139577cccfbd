"""What makes the log lose nothing: a writer with a time limit, and a journal for what the store does not take.

writer = DurableWriter(store, WriterOptions(journal=Path("rlhi.db.journal")))
writer.write("t1", user_id=None, messages=[...])   # True: on disk, in the store or in the journal
writer.status()
"""

from rlhi_plugin.durability.location import journal_folder, journal_folders
from rlhi_plugin.durability.status import Durability, DurabilityStatus
from rlhi_plugin.durability.timed import TimedConsents, TimedPersonas
from rlhi_plugin.durability.writer import DurableWriter
from rlhi_plugin.durability.writer_options import WriterOptions

__all__ = [
    "Durability",
    "DurabilityStatus",
    "DurableWriter",
    "TimedConsents",
    "TimedPersonas",
    "WriterOptions",
    "journal_folder",
    "journal_folders",
]

"""Logs that were made elsewhere, as the records of this package. One format, one file; `reading.py` knows them all."""

from __future__ import annotations

from rlhi_plugin.importers.reading import FORMATS, format_named, read_log, read_rows
from rlhi_plugin.importers.row import Format, Imported, Row

__all__ = ["FORMATS", "Format", "Imported", "Row", "format_named", "read_log", "read_rows"]

"""Every error that RLHI raises on purpose, in one tree.

::

    RLHIError                      exit code 1: we, or something we depend on, failed
    ├── UserError                  exit code 2: the caller can mend it; the message says how
    │   ├── ConfigError            (also a ValueError)   recipe, flag, URL or argument
    │   ├── RecordError            (also a ValueError)   one bad row, named by file and line or record
    │   └── MissingExtraError      (also an ImportError) an optional part is not installed
    ├── StoreError                 the conversation store cannot be read or written
    │   ├── OwnerMismatchError     the conversation belongs to another user
    │   └── StoreTimeoutError      (also a TimeoutError) it did not answer in time
    ├── ModelCallError             a model call failed after its retries
    └── ArtefactError              a run, an adapter or a report is damaged or does not fit

A message ends with what to do about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal


class RLHIError(Exception):
    """Root of the tree. Catch it to catch everything RLHI raises on purpose."""

    exit_code = 1


class UserError(RLHIError):
    """The caller gave something that cannot work; the message ends with a remedy."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A recipe, flag, URL or constructor argument is wrong."""


class RecordError(UserError, ValueError):
    """One row of a file cannot be read as a record.

    Attributes:
        path: The file.
        line: 1-based number of the line in it, or of the record where lines mean nothing.
        unit: What `line` counts.
    """

    def __init__(self, message: str, *, path: str | Path, line: int, unit: Literal["line", "record"] = "line") -> None:
        super().__init__(f"{path}:{line}: {message}" if unit == "line" else f"{path}: record {line}: {message}")
        self.path = Path(path)
        self.line = line
        self.unit = unit


class MissingExtraError(UserError, ImportError):
    """An optional dependency is absent; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'rlhi[{extra}]'")
        self.package = package
        self.extra = extra


class StoreError(RLHIError):
    """The conversation store cannot be opened, read or written."""


class OwnerMismatchError(StoreError):
    """Messages were offered for a conversation that belongs to another user, or to nobody."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The store did not answer within its time limit. What it was asked may still happen."""


class ModelCallError(RLHIError):
    """A model call failed for good, after whatever retries were configured."""


class ArtefactError(RLHIError):
    """A run directory, adapter or report is damaged, incomplete, or belongs to something else."""

"""Every error that RLHI raises on purpose, in one tree.

::

    RLHIError                      exit code 1: we, or something we depend on, failed
    ├── UserError                  exit code 2: the caller can mend it; the message says how
    │   ├── ConfigError            (also a ValueError)   recipe, flag, URL or argument
    │   ├── RecordError            (also a ValueError)   one bad row, named by file and line or record
    │   ├── MissingExtraError      (also an ImportError) an optional part is not installed
    │   └── FullDiskError          exit code 1: nobody's mistake; with room, the same command goes on
    ├── StoreError                 the conversation store cannot be read or written
    │   ├── OwnerMismatchError     the conversation belongs to another user
    │   └── StoreTimeoutError      (also a TimeoutError) it did not answer in time
    ├── ModelCallError             a model call failed after its retries
    │   ├── TransientCallError     in a way that passes: rate limit, time-out, server error, cut answer
    │   ├── InvalidReplyError      it answered, but not with the JSON that was asked for; the text is kept
    │   └── ProviderUnavailableError    no call can succeed as things are; what is done is kept
    │       └── ProviderSetupError (also a UserError)    key, model name, credit or address is wrong
    ├── BudgetReachedError         exit code 3: stopped before more than the budget was spent; what is done is kept
    └── ArtefactError              a run, an adapter or a report is damaged or does not fit

A message ends with what to do about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal


class RLHIError(Exception):
    """Root of the tree. Catch it to catch everything RLHI raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross from one process to another as they are, whatever their constructors take."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[RLHIError], args: tuple[Any, ...], attributes: dict[str, Any]) -> RLHIError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


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


class FullDiskError(UserError):
    """There is no room, or no more of a quota; what is done is kept."""

    exit_code = 1


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


class TransientCallError(ModelCallError):
    """A call failed in a way that passes; the same call may succeed later.

    Attributes:
        retry_after_s: Seconds that the provider asked to wait, or None.
        maybe_paid: Whether the provider may have done the work all the same: it never said that it had not.
        unreachable: Whether nothing was there to answer.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, maybe_paid: bool = False, unreachable: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.maybe_paid = maybe_paid
        self.unreachable = unreachable


class InvalidReplyError(ModelCallError):
    """A model answered, but not with the JSON that was asked for.

    Attributes:
        text: The first reply that is wrong.
        replies: All of them (`rlhi_plugin.chat.ChatReply`); they were paid for.
    """

    def __init__(self, message: str, *, text: str, replies: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.text = text
        self.replies = replies


class ProviderUnavailableError(ModelCallError):
    """No call can succeed as things are: stop, keep what is done, go on when it is mended."""


class ProviderSetupError(ProviderUnavailableError, UserError):
    """The key, the model's name, the credit or the address is wrong."""


class BudgetReachedError(RLHIError):
    """The next call would cost more than the budget leaves. Nothing is lost; a higher budget goes on from here."""

    exit_code = 3


class ArtefactError(RLHIError):
    """A run directory, adapter or report is damaged, incomplete, or belongs to something else."""

"""A provider's error as one of ours: whether it passes, whether it may have been paid for, and what to do.

Sources: https://platform.openai.com/docs/guides/error-codes, https://docs.litellm.ai/docs/exception_mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from rlhi_plugin.errors import ModelCallError, ProviderSetupError, TransientCallError

_SETUP = {
    401: "Set the provider's API key in the environment.",
    402: "Pay the provider's bill, or use another key.",
    403: "Use a key that may use this model.",
    404: "Check the model's name and the address.",
    405: "Check the address: it mostly ends with /v1.",
}
_REQUEST = {
    400: "Check what the model supports; a context that is too long must be trimmed.",
    413: "Trim the context by whole turns.",
    422: "Check what the model supports.",
}
_OUT_OF_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "exceeded your current quota")
_TRANSIENT_4XX = {408, 409, 425, 429}


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a call that failed.

    Attributes:
        model: The model.
        kind: The vendor's name of the error.
        message: The vendor's words.
        status: HTTP status; None where no response came.
        headers: Of the response, with lower-case names.
    """

    model: str
    kind: str
    message: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        said = " ".join(self.message.split())[:300].rstrip(".")
        return f"{self.model}: {self.kind}{f' (HTTP {self.status})' if self.status else ''}: {said}."


def answered_with(failure: Failure) -> ModelCallError:
    """The error for a response with an error status."""
    status = failure.status or 500
    if status == 429 and any(words in failure.message for words in _OUT_OF_CREDIT):  # noqa: PLR2004 - too many requests
        return ProviderSetupError(f"{failure} The account is out of credit: pay, or use another key.")
    if status in _SETUP:
        return ProviderSetupError(f"{failure} {_SETUP[status]}")
    if status in _TRANSIENT_4XX or status >= 500:  # noqa: PLR2004 - the provider's own failures
        remedy = "Lower calls.requests_per_minute, or raise calls.attempts." if status == 429 else "Try again later."  # noqa: PLR2004
        return TransientCallError(f"{failure} {remedy}", retry_after_s=retry_after(failure.headers))
    return ModelCallError(f"{failure} {_REQUEST.get(status, 'See the message of the provider.')}")


def timed_out(failure: Failure) -> TransientCallError:
    """The error for an answer that did not come in time."""
    return TransientCallError(f"{failure} Raise calls.timeout_s, or try again later.", maybe_paid=True)


def broken_off(failure: Failure) -> TransientCallError:
    """The error for a connection that ended before the answer did."""
    return TransientCallError(f"{failure} Try again later.", maybe_paid=True)


def unreachable(failure: Failure) -> TransientCallError:
    """The error for an address where nothing answers."""
    return TransientCallError(f"{failure} Check the network and the address.", unreachable=True)


def no_completion(model: str, text: str) -> ModelCallError:
    """The error for a response with status 200 that is no chat completion."""
    begun = " ".join(text.split())[:80]
    if text.lstrip().startswith("<"):
        return ProviderSetupError(
            f"{model}: the address answers with a web page, not with a chat completion: {begun!r}. "
            "Check the address: it mostly ends with /v1."
        )
    return TransientCallError(
        f"{model}: the answer is no chat completion: {begun!r}. Check the address, or try again later.", maybe_paid=True
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds by a ``Retry-After`` (RFC 9110, 10.2.3) or ``retry-after-ms`` header; None where there is none."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if "retry-after" not in headers:
            return None
        return max(0.0, float(headers["retry-after"]))
    except ValueError:
        return _until(headers["retry-after"])


def _until(date: str) -> float | None:
    from datetime import UTC, datetime

    try:
        return max(0.0, (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None

"""Redaction of whole messages: every kind of content block, tool arguments, tool results, the text of a stream.

    redaction = MessageRedactor(open_redactor("default"))
    message = redaction.message(message, Scope(conversation_id, user_id))

Call it before anything is made of the message: an id that is a digest of the text that was said would let anybody test
a guess of the secret in it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.patterns import PatternFinder
from rlhi_plugin.privacy.placeholders import NO_SCOPE, Scope
from rlhi_plugin.privacy.redaction import DEFAULT_KINDS, KINDS, NOT_STORED, Redacted, Redactor, SpanRedactor
from rlhi_plugin.privacy.vault import Vault
from rlhi_plugin.shown import shown

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from rlhi_plugin.records import Conversation

    M = TypeVar("M", bound=BaseMessage)

RedactOption: TypeAlias = "Literal['default', 'off'] | Iterable[str] | Redactor"
"""What an app may ask for: all kinds, none, some of `rlhi_plugin.privacy.redaction.KINDS`, or a redactor of its own."""

_REMEMBERED = 32_768
"""Texts whose redaction is kept: a thread's history comes back with every turn."""
_MEMO_FROM = 200
"""Characters from which looking a text up is faster than reading it again (ours)."""

_SECRET_NAMES = re.compile(
    r"(?:.*[_\-. ])?(?:pass(?:word|wd|phrase|code|wort)|pwd|secret|api[_\-]?key|authorization"
    r"|(?:access|auth|refresh|secret)[_\-]?token|(?:secret|private|access)[_\-]?key"
    r"|kennwort|contrase[nñ]a|senha|mot[_\- ]?de[_\- ]?passe|пароль|密[码碼]|パスワード|비밀번호)s?",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Between the words of a name such as `dbPassword`."""
_BYTES = frozenset({"data", "base64", "b64_json", "image_data", "file_data", "encrypted_content", "signature"})
"""Names under which content blocks hold bytes, which no detector can read; what is stored names such a block only.
Arguments of a tool are stored whole, so that there these names mean nothing."""


def open_redactor(option: RedactOption, *, vault: Vault | None = None) -> Redactor | None:
    """The redactor that an option asks for; None for ``off``.

    Args:
        option: See `RedactOption`.
        vault: Keeps what is replaced, for an app that wants it back. Not with a redactor of your own.

    Raises:
        ConfigError: the option is none, or cannot have a vault.
    """
    if isinstance(option, Redactor):
        if vault is not None:
            raise ConfigError(
                "a redactor of your own keeps its own vault. Leave vault= out, or pass SpanRedactor(...)."
            )
        return option
    if option == "off":
        if vault is not None:
            raise ConfigError("redact='off' replaces nothing that a vault could keep. Leave vault= out.")
        return None
    if option == "default":
        return SpanRedactor(PatternFinder(DEFAULT_KINDS), vault=vault)
    if isinstance(option, str) or not isinstance(option, Iterable):
        raise ConfigError(
            f"redact={option!r} is not an option. Choose 'default', 'off', some of {', '.join(KINDS)}, or pass an "
            "object with a method redact(text, *, scope)."
        )
    return SpanRedactor(PatternFinder(option), vault=vault)


class MessageRedactor:
    """Redacts messages, and remembers what it made of them. Thread-safe.

    What a redactor raises is passed on: what cannot be made safe must not be stored.

    Args:
        redactor: Reads the texts.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        # Of another class it is not known what it does to a text without anything private.
        self._spares = redactor.spares if type(redactor) is SpanRedactor else None
        self._counts: Counter[str] = Counter()
        self._memo: OrderedDict[bytes, str | None] = OrderedDict()
        # The memo's keys must not become what ids may not be.
        self._memo_key = secrets.token_bytes(32)
        self._lock = threading.Lock()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many spans were replaced since this object was made, by kind; a text that comes again counts once."""
        with self._lock:
            return dict(self._counts)

    def text(self, text: str, scope: Scope = NO_SCOPE) -> str:
        """A text without what is private: a system prompt, the comment of a feedback event."""
        if self._spares is not None and self._spares(text):
            return text
        if len(text) < _MEMO_FROM:
            return self._counted(self._redactor.redact(text, scope=scope))
        key = self._key(text, scope)
        with self._lock:
            if key in self._memo:
                self._memo.move_to_end(key)
                known = self._memo[key]
                return text if known is None else known
        clean = self._counted(self._redactor.redact(text, scope=scope))
        with self._lock:
            self._memo[key] = None if clean == text else clean
            if len(self._memo) > _REMEMBERED:
                self._memo.popitem(last=False)
        return clean

    def texts(self, parts: Sequence[str], scope: Scope = NO_SCOPE) -> list[str]:
        """The parts of one message; also without what is private only when they are read as one."""
        if len(parts) > 1 and not any(NOT_STORED in part for part in parts):
            # First as one: half of a secret that is found alone would leave the other half.
            whole = self.text(NOT_STORED.join(parts), scope).split(NOT_STORED)
            # A redactor that eats the marks leaves its text in one piece.
            parts = whole if len(whole) == len(parts) else ["".join(whole), *[""] * (len(parts) - 1)]
        return [self.text(part, scope) for part in parts]

    def json(self, value: Any, scope: Scope = NO_SCOPE, *, in_block: bool = False) -> Any:
        """A JSON value with its strings, and numbers that are private, redacted; the names of fields say more.

        Names stay, unless one holds something private itself. What is not JSON becomes its text.

        Args:
            value: Arguments of a tool, or part of a content block.
            scope: The conversation.
            in_block: Whether it is the latter, whose bytes stay as they are.
        """
        match value:
            case str():
                return self.text(value, scope)
            case None | bool():
                return value
            case int() | float():
                text = str(value)
                clean = self.text(text, scope)
                return value if clean == text else clean
            case Mapping():
                return {
                    self.text(shown(k), scope): self._field(shown(k), v, scope, in_block=in_block)
                    for k, v in value.items()
                }
            case list() | tuple():
                return [self.json(item, scope, in_block=in_block) for item in value]
        return self.text(shown(value), scope)

    def message(self, message: M, scope: Scope = NO_SCOPE) -> M:
        """A LangChain message, its content and the arguments of its tool calls redacted; its id stays.

        The very same object when nothing was found. What the model says, streamed or not, arrives here whole.
        """
        changes: dict[str, Any] = {}
        said = message.content
        if not isinstance(said, str) or self._spares is None or not self._spares(said):
            content = self.text(said, scope) if isinstance(said, str) else self._content(said, scope)
            if content != said:
                changes["content"] = content
        for name in ("tool_calls", "invalid_tool_calls"):
            # Its fields are there; to be asked for one that it lacks takes pydantic longer than all the rest.
            if calls := message.__dict__.get(name):
                clean = [{**call, "args": self.json(call["args"], scope)} for call in calls]
                if clean != calls:
                    changes[name] = clean
        return message.model_copy(update=changes) if changes else message

    def conversation(self, conversation: Conversation) -> Conversation:
        """A recorded conversation, for an import of a log that was never redacted; ids stay as they are."""
        scope = Scope(conversation.conversation_id, conversation.user_id)
        clean = [self.text(message.content, scope) for message in conversation.messages]
        messages = tuple(
            message if text == message.content else message.model_copy(update={"content": text})
            for message, text in zip(conversation.messages, clean, strict=True)
        )
        return conversation.model_copy(update={"messages": messages})

    def _content(self, content: Any, scope: Scope) -> Any:
        texts = iter(self.texts([_block_text(b) for b in content if _block_text(b) is not None], scope))  # type: ignore[misc] # None is left out
        return [self._block(block, texts, scope) for block in content]

    def _block(self, block: Any, texts: Any, scope: Scope) -> Any:
        if isinstance(block, str):
            return next(texts)
        if _block_text(block) is not None:
            return {**self._fields(block, scope, but="text"), "text": next(texts)}
        return self._fields(block, scope)

    def _fields(self, block: Mapping[str, Any], scope: Scope, *, but: str = "") -> dict[str, Any]:
        return {
            k: v if k in ("type", "id", "index", but) else self._field(k, v, scope, in_block=True)
            for k, v in block.items()
        }

    def _field(self, name: str, value: Any, scope: Scope, *, in_block: bool) -> Any:
        if in_block and isinstance(value, str) and (name in _BYTES or value.startswith("data:")):
            return value
        if isinstance(self._redactor, SpanRedactor) and _SECRET_NAMES.fullmatch(_HUMP.sub("_", name)):
            return self._secret(self._redactor, value, scope, in_block=in_block)
        return self.json(value, scope, in_block=in_block)

    def _secret(self, redactor: SpanRedactor, value: Any, scope: Scope, *, in_block: bool) -> Any:
        """What stands under the name of a secret: each word and number in it, and no more than that."""
        match value:
            case list() | tuple():
                return [self._secret(redactor, item, scope, in_block=in_block) for item in value]
            case str() | int() | float() if not isinstance(value, bool):
                return self._counted(redactor.redact_value(str(value), "password", scope=scope))
        return self.json(value, scope, in_block=in_block)

    def _counted(self, redacted: Redacted) -> str:
        if redacted.counts:
            with self._lock:
                self._counts.update(redacted.counts)
        return redacted.text

    def _key(self, text: str, scope: Scope) -> bytes:
        body = f"{scope.user_id or ''}\0{scope.conversation_id}\0{text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(body, digest_size=16, key=self._memo_key).digest()


def _block_text(block: Any) -> str | None:
    """The text of a block that is one; None for blocks of another kind."""
    if isinstance(block, str):
        return block
    return block["text"] if block.get("type") == "text" and isinstance(block.get("text"), str) else None

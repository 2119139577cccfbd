"""What must not enter a persona: text that addresses the model's machinery rather than the manner of its answers.

A persona is read into every later prompt of its user, so an instruction that slips in stays. Text that a program wrote
is screened out too, so that it is never read back as something the user said: our own frames, our replies to commands,
and the summaries that LangChain puts into the user's mouth.
"""

from __future__ import annotations

import re
import unicodedata

from rlhi_plugin.persona.phrases import REPLIES
from rlhi_plugin.persona.render import FRAME_HEAD, FRAME_TAIL, PRIOR_HEAD, PRIOR_TAIL, visible

_SUSPICIOUS = re.compile(
    r"""
      <\|[^|>]*\|>                                       # chat-template tokens
    | </?(?:s|bos|eos|pad|unk|think|tool_call)> | <(?:start|end)_of_t(?:urn|ext)> | \[/?(?:TOOL_\w+|AVAILABLE_TOOLS)\]
    | \[/?INST\] | <</?SYS>> | </?(?:system|assistant|user|persona|instructions?)>
    | (?:^|\n)\s*\#*\s*(?:system|assistant|developer|human|user)\s*: | [.!?;]\s*(?:system|assistant|developer)\s*:
    | [\u202d\u202e]                                   # overrides of the writing direction show another text
    | \b(?:ignore|disregard|forget|override|bypass)\b .{0,30}
      \b(?:instructions?|rules?|prompts?|guidelines?|above|previous|policy|policies)\b
    | \b(?:system\s+prompt|developer\s+mode|jailbreak|jailbroken|DAN|do\s+anything\s+now)\b
    | \byou\s+are\s+(?:now|no\s+longer)\b | \bpretend\s+(?:to\s+be|that\s+you|you)\b | \bact\s+as\b
    | \bno\s+(?:restrictions?|filters?|limits?|censorship)\b | \bunfiltered\b | \buncensored\b
    | \bhere\ is\ a\ summary\ of\ the\ conversation\b | \bsummary\ of\ the\ conversation\ (?:to\ date|so\ far)\b
    # The same in German, French, Spanish, Portuguese and Italian, Russian, Chinese, Japanese, Korean.
    | \b(?:ignorier|missacht|vergiss|vergess)\w*\b .{0,30} \b(?:anweisung|vorgabe|regel|vorherig|bisherig|obig)
    | \b(?:ignore[rz]?|oublie[rz]?|contourne[rz]?)\b .{0,30}
      \b(?:consigne|instruction|r[eè]gle|pr[eé]c[eé]dent)
    | \b(?:ignor[ae]|olvid[ae]|esque[cç]|dimentic)\w*\b .{0,30}
      \b(?:instruc|instruç|istruzion|reglas|regras|regole|anterior|precedent)
    | (?:игнорируй|забудь) .{0,30} (?:инструкц|правил|указан)
    | (?:忽略|无视|無視|忘记|忘掉) .{0,12} (?:指令|指示|规则|規則|提示)
    | (?:指示|命令|ルール|プロンプト) .{0,8} (?:無視|忘れ)
    | (?:지시|규칙|명령) .{0,8} (?:무시|잊)
    | https?:// | ``` | data:[a-z]+/
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_NEEDS = (
    *("<|", "inst]", "sys>>", "system", "assistant", "user", "persona", "instruction", "developer", "human", "ignor"),
    *("disregard", "forget", "override", "bypass", "jailbr", "dan", "anything", "now", "longer", "pretend", "act"),
    *("s>", "pad>", "unk>", "think>", "tool_", "_tools", "_of_t"),
    *("missacht", "vergiss", "vergess", "oubli", "contourn", "olvid", "esquec", "dimentic"),
    *("restriction", "filter", "limit", "censor", "summary", "http", "```", "data:"),
)
"""Of which one is in every ASCII text that `_SUSPICIOUS` matches: most texts hold none, which is soon found out."""

_OURS = tuple(line.casefold() for line in (FRAME_HEAD, FRAME_TAIL, PRIOR_HEAD, PRIOR_TAIL, *REPLIES))


def is_safe(text: str) -> bool:
    """Whether `text`, verbatim and possibly of several lines, may be quoted in a persona.

    It is looked at as written, without what a reader would not see, and with look-alike letters and full-width forms
    replaced by the plain ones (Unicode NFKC).
    """
    seen = visible(text)
    plain = seen if text.isascii() else visible(unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKE))
    if any(map(is_suspicious, {text, seen, plain})):
        return False
    folded = plain.casefold()
    return not any(line in folded or (len(folded) > len(line) // 2 and folded in line) for line in _OURS)


def is_suspicious(text: str) -> bool:
    """Whether `text`, exactly as it is, addresses the model's machinery."""
    if text.isascii():
        # Elsewhere, letters that are no Latin ones match Latin ones without regard to case.
        lowered = text.lower()
        for need in _NEEDS:
            if need in lowered:
                return _SUSPICIOUS.search(text) is not None
        return False
    return _SUSPICIOUS.search(text) is not None


# Cyrillic and Greek letters that look like Latin ones; only these read as another word than they are written as.
_LOOK_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0501\u03bf\u03b1\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425",
    "aeopcyxisdoaABEKMHOPCTX",
)

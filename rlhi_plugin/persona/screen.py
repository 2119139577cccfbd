"""What must not enter a persona: text that addresses the model's machinery rather than the manner of its answers.

A persona is read into every later prompt of its user, so an instruction that slips in stays. What our own frame says is
screened out too: text that we injected is never read back as something the user said.
"""

from __future__ import annotations

import re

from rlhi_plugin.persona.render import FRAME_HEAD, FRAME_TAIL, visible

_SUSPICIOUS = re.compile(
    r"""
      <\|[^|>]*\|>                                       # chat-template tokens
    | \[/?INST\] | <</?SYS>> | </?(?:system|assistant|user|persona|instructions?)>
    | (?:^|\n)\s*\#*\s*(?:system|assistant|developer|human|user)\s*:
    | \b(?:ignore|disregard|forget|override|bypass)\b .{0,30}
      \b(?:instructions?|rules?|prompts?|guidelines?|above|previous|policy|policies)\b
    | \b(?:system\s+prompt|developer\s+mode|jailbreak|jailbroken|DAN|do\s+anything\s+now)\b
    | \byou\s+are\s+(?:now|no\s+longer)\b | \bpretend\s+(?:to\s+be|that\s+you|you)\b | \bact\s+as\b
    | \bno\s+(?:restrictions?|filters?|limits?|censorship)\b | \bunfiltered\b | \buncensored\b
    | https?:// | ``` | data:[a-z]+/
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_FRAME = (FRAME_HEAD.casefold(), FRAME_TAIL.casefold())


def is_safe(text: str) -> bool:
    """Whether `text`, verbatim and possibly of several lines, may be quoted in a persona."""
    seen = visible(text)
    if _SUSPICIOUS.search(text) or _SUSPICIOUS.search(seen):
        return False
    folded = seen.casefold()
    return not any(line in folded or (len(folded) > len(line) // 2 and folded in line) for line in _FRAME)

"""What the reports have in common: one HTML file that opens offline, shows all that is inside it, and asks nobody.

jinja2 and matplotlib come with the extra ``report``; nothing here imports them before a page is made.
"""

from __future__ import annotations

from rlhi_plugin.page.html import render_page, script_json

__all__ = ["render_page", "script_json"]

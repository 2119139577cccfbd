"""Figures as SVG text to be placed inline: no file, no request, sharp at any size, in the page's own font."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET = "#1f2937", "#5b6472"
"""Colours of text and of what stands behind it."""


@contextmanager
def inline_figure(width: float, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """A figure in the house's style; its SVG text is in the list once the block ends.

    Args:
        width: Inches.
        height: Inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error

    style: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "rlhi",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": QUIET,
        "axes.edgecolor": "#9ca3af",
        "xtick.color": QUIET,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "ytick.major.size": 0,
        "axes.axisbelow": True,
    }
    out: list[str] = []
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, out
        for axes in figure.axes:
            axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        target = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=nothing)
        out.append(_inline(target.getvalue()))


def _inline(svg: str) -> str:
    """Keep the element, without XML head, fixed size and fonts: the page's own apply."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'(<svg[^>]*?) width="[^"]+" height="[^"]+"', r"\1", element.replace("\n", " ", 1), count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]+"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) width="[^"]+"', r"\1", element, count=1)
    element = re.sub(r' xmlns(:xlink)?="[^"]+"', "", element)
    element = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|legend|LineCollection)_\d+"', "", element
    )
    # Inline SVG knows href without its old namespace.
    element = element.replace("xlink:href", "href")
    element = re.sub(
        r"font: (?P<weight>(?:bold |700 )?)(?P<size>[\d.]+px) [^;\"]+", r"font: \g<weight>\g<size> var(--font)", element
    )
    return element.strip()

"""Templates to a page: escaped by default, with the house's style and its own, and data that cannot break out."""

from __future__ import annotations

import json
from importlib.resources import files
from importlib.resources.abc import Traversable

from rlhi_plugin.errors import MissingExtraError

_HOUSE = "rlhi_plugin.page"
_MACROS = "house.html.j2"


def render_page(folder: Traversable, **values: object) -> str:
    """Render ``page.html.j2`` of a folder, which may import the house's macros and finds `css` and `script`.

    Args:
        folder: Holds ``page.html.j2`` and ``page.css``, and ``page.js`` where the page has a script.
        values: What the template names. Texts are escaped; what is markup already is marked safe there.

    Returns:
        The page; the same values give the same bytes.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    house = files(_HOUSE)
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.DictLoader({_MACROS: (house / _MACROS).read_text("utf-8")}),
    )
    template = environment.from_string((folder / "page.html.j2").read_text("utf-8"))
    return template.render(
        css="\n".join(
            (place / name).read_text("utf-8") for place, name in ((house, "house.css"), (folder, "page.css"))
        ),
        script="\n".join(
            (place / name).read_text("utf-8")
            for place, name in ((house, "house.js"), (folder, "page.js"))
            if (place / name).is_file()
        ),
        **values,
    )


def script_json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return (
        json.dumps(value, ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )

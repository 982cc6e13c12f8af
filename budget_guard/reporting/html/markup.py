"""HTML and SVG, element by element: whatever is not markup already is escaped."""

from __future__ import annotations

import html

from budget_guard.units.printable import printable


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """The element *name*.

    Args:
        name: The element's name.
        children: What it holds: `Markup` as it is, any other text escaped; None is left out.
        attributes: Their values, escaped as children are; those that are None are left out. An underscore stands for
            a hyphen, and one at the end keeps a name apart from a word of Python: ``class_``, ``stroke_width``.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = joined(*children)
    return Markup(f"<{name}{given}>" if name in _EMPTY else f"<{name}{given}>{inner}</{name}>")


def joined(*parts: object) -> Markup:
    """*parts*, one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else _text(part) for part in parts if part is not None))


_EMPTY = {"meta", "link", "br", "input"}


def _text(value: object) -> str:
    """Escaped: it is no markup, and steers nothing that shows it."""
    return html.escape(printable(value), quote=False)


def _attribute(value: object) -> str:
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")  # a tenth of a dot is fine enough for a picture
    return html.escape(printable(value))

"""Docstrings as the site reads them: roles become links, mathematics pictures, doctests code.

They are written for ``help()`` and for readers of the source, with roles of Sphinx
(``:class:`Attack```) and ``Example:`` before a doctest.
"""

from __future__ import annotations

import html
import re
import textwrap
from typing import Any

import griffe
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath, text_to_path
from rooms import HOME

_FONT = FontProperties(size=10, math_fontfamily="cm")
_EM = 0.115
"""Em of the text for a point of a formula, which is set in ten points."""
_KNOWN = {
    r"\\[dt]?frac *(\w)(\w)": r"\\frac{\1}{\2}",
    r"\\[dt]frac": r"\\frac",
    r"\\(le|ge|ne)(?![a-z])": r"\\\1q",
    r"\\mathcal (\w)": r"\\mathcal{\1}",
    r"\\[Bb]ig(?![a-z])": "",
    r"\\bmod": r"\\ \\mathrm{mod}\\ ",
}
"""Commands that matplotlib does not know -> those it has for them."""


def picture(latex: str, *, alone: bool = False) -> str:
    """A formula as SVG in the colour of the text; what matplotlib cannot set stays LaTeX."""
    source = " ".join(latex.split())
    shown = f"${source}$"
    for command, known in _KNOWN.items():
        shown = re.sub(command, known, shown)
    try:
        width, height, depth = text_to_path.get_text_width_height_descent(shown, _FONT, True)
        outline = TextPath((0, 0), shown, prop=_FONT)
    except ValueError:
        return f"\n```latex\n{source}\n```\n" if alone else f"`{source}`"
    names = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
    drawn, last = [], None
    for (x, y), code in zip(outline.vertices, outline.codes, strict=True):
        if code == Path.CLOSEPOLY:
            drawn.append("Z")
        else:
            new = code not in (Path.CURVE3, Path.CURVE4) or code != last
            drawn.append(f"{names[code] if new else ''}{x:.2f} {-y:.2f} ")
        last = code
    box = f"-0.5 {-(height - depth) - 0.5:.2f} {width + 1:.2f} {height + 1:.2f}"
    size = f"width:{(width + 1) * _EM:.2f}em;height:{(height + 1) * _EM:.2f}em"
    place = "" if alone else f";vertical-align:{-(depth + 0.5) * _EM:.2f}em"
    label = html.escape(source).replace("\\", "&#92;").replace("*", "&#42;").replace("_", "&#95;")
    svg = (
        f'<svg class="formula" role="img" aria-label="{label}" viewBox="{box}" '
        f'style="{size}{place}"><path d="{"".join(drawn)}"/></svg>'
    )
    return f'\n<div class="formula">{svg}</div>\n' if alone else svg


def link(match: re.Match[str]) -> str:
    """A role as a link, where the site has a page for its name."""
    path = match[1].lstrip("~")
    name = path.rpartition(".")[2]
    return f"[`{name}`][{HOME[name]}]" if name in HOME else f"`{name}`"


def readable(text: str) -> str:
    """A docstring in Markdown."""
    block = r"(?m)^([ ]*)\.\. math::((?:.|\n)*?)(?=\n[ ]*\n(?!\1[ ])|\Z)"
    text = re.sub(block, lambda m: textwrap.indent(picture(m[2], alone=True), m[1]), text)
    text = re.sub(r":math:`([^`]+)`", lambda m: picture(m[1]), text)
    text = re.sub(r":(?:attr|class|data|func|meth|mod):`([^`]+)`", link, text)
    return re.sub(r"(?m)^([ ]*)Example:$", r"\1Examples:", text)


class Docstrings(griffe.Extension):
    """Rewrites each docstring as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)

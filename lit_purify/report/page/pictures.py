"""Figures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

_SALT = {"svg.hashsalt": "lit_purify"}  # or the ids in the file would be random

_KNOWN = {
    "law": (
        "Robust accuracy against compression rate, and the sigmoid law (Fig. 3b)",
        "A scatter plot: accuracy in percent falls as the compression rate rises; the paper's "
        "points and curve are grey, these runs' coloured. The numbers are in the table of runs.",
    ),
    "law_among_purified": (
        "The same among the images that are right without an attack",
        "A scatter plot: of the images that purification leaves right, the share in percent that "
        "is still right under attack, against the compression rate.",
    ),
    "magnitude": (
        "Robust accuracy against the size of the attack",
        "A scatter plot of robust accuracy in percent against the mean l2 norm of the attack's "
        "perturbation.",
    ),
    "base_curve": (
        "The classifier alone under smaller budgets, and the purified one (Fig. 3c)",
        "A falling curve of the classifier's own robust accuracy against the budget, with a mark "
        "for each purified classifier at eps times its compression rate.",
    ),
    "depth": (
        "Accuracy and compression rate against the depth t* (Fig. S4)",
        "Curves over the depth t*, one for each way to purify: accuracy in percent, clean and "
        "attacked, and the compression rate.",
    ),
    "protocols": (
        "Robust accuracy by what the attacker knows of the noise (Tables 2 to 4)",
        "Bars of robust accuracy in percent with error bars, one group for each purifier, one bar "
        "for each protocol.",
    ),
}
"""Figure -> its caption, and what one would see in it."""


class Picture(NamedTuple):
    """A figure on a page.

    Attributes:
        title: what it shows, as a caption.
        alt: what one would see in it.
        uri: a data URI.
    """

    title: str
    alt: str
    uri: str


def svg_uri(figure: Figure) -> str:
    """A figure as an SVG that is the same bytes whenever it is drawn."""
    picture = io.BytesIO()
    with rc_context(_SALT):  # type: ignore[arg-type]
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.getvalue()).decode()}"


def pictures(figures: Mapping[str, Figure]) -> list[Picture]:
    """Figures by name, with a caption and a description; an unknown one has its name for both."""
    found = []
    for name, figure in figures.items():
        title, alt = _KNOWN.get(name, (name.replace("_", " "),) * 2)
        found.append(Picture(title, alt, svg_uri(figure)))
    return found

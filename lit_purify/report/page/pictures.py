"""Figures as data URIs."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

_SALT = {"svg.hashsalt": "lit_purify"}  # or the ids in the file would be random


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

"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from markupsafe import Markup

from lit_purify.records.runs import FinishedRun, short_names
from lit_purify.report.findings import Outcome, findings
from lit_purify.report.page.facts import COLUMNS, RunFacts, run_facts, shared
from lit_purify.report.page.gallery import Gallery, gallery
from lit_purify.report.page.pictures import pictures
from lit_purify.report.paper_tables import paper_tables
from lit_purify.types import InputError

LARGEST = 5_000_000
"""Bytes that a page may have: what mail takes as an attachment."""
_IMAGES = 3_000_000
"""Bytes of these for images."""
_FEWEST = 40_000
"""Bytes for the images of a run, or it has none: about one image of CIFAR-10."""


def page(
    runs: Sequence[FinishedRun],
    figures: Mapping[str, Figure],
    *,
    remarks: Sequence[str] = (),
) -> str:
    """A report for reading: verdict, tables, figures, images, settings.

    The same records give the same bytes. Nothing is loaded from elsewhere, and without JavaScript
    everything is there.

    Args:
        runs: finished runs, at least one.
        figures: by the name of their file, such as ``law``.
        remarks: what a reader must know of the choice of runs, in sentences.

    Returns:
        HTML, below 5 MB.

    Raises:
        InputError: the records of a run are damaged, or so many runs have no room.
    """
    names = short_names(runs)
    facts = [run_facts(run, name) for run, name in zip(runs, names, strict=True)]
    tables = paper_tables(runs)
    common = shared([fact.settings for fact in facts])
    context = {
        "facts": facts,
        "findings": findings(runs),
        "outcomes": list(Outcome),
        "columns": {name: head for name, head in COLUMNS.items() if _any_has(facts, name)},
        "tables": [table for table in tables if table.measured],
        "unmeasured": [table.number for table in tables if not table.measured],
        "pictures": pictures(figures),
        "common": common,
        "own": [
            {name: value for name, value in fact.settings.items() if name not in common}
            for fact in facts
        ],
        "versions": shared([fact.versions for fact in facts]),
        "remarks": remarks,
    }
    template = _environment().get_template("page.html.j2")
    without = len(template.render(context, galleries=[]).encode())
    text = template.render(context, galleries=_galleries(facts, LARGEST - without))
    if (size := len(text.encode())) > LARGEST:
        raise InputError(
            f"the page of {len(runs)} runs would have {size / 1e6:.1f} MB; expected at most "
            f"{LARGEST / 1e6:g}, which mail takes; name fewer runs"
        )
    return text


def _any_has(facts: Sequence[RunFacts], metric: str) -> bool:
    return any(metric in fact.cells for fact in facts)


def _galleries(facts: Sequence[RunFacts], room: int) -> list[tuple[RunFacts, Gallery]]:
    """The images of runs, all with the same room; of the first runs where there are many."""
    each = max(_FEWEST, min(room - 100_000, _IMAGES) // len(facts))
    found = []
    for fact in facts:
        if (room := room - each) < 0:
            break
        found.append((fact, gallery(fact.tensors, fact.class_names, each)))
    return found


def _environment() -> Environment:
    """Templates that escape whatever they are given, and refuse what they are not."""
    environment = Environment(
        loader=PackageLoader("lit_purify.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = Path(__file__).parent
    for name in ("page.css", "page.js"):
        environment.globals[name.replace(".", "_")] = Markup((here / name).read_text("utf-8"))
    return environment

"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from lit_purify.records.runs import FinishedRun, short_names
from lit_purify.report.attacks import cell_lines, compared_attacks
from lit_purify.report.findings import Judgement, findings
from lit_purify.report.page.facts import RunFacts, columns, run_facts, shared
from lit_purify.report.page.gallery import Gallery, gallery
from lit_purify.report.page.pictures import pictures
from lit_purify.report.paper_tables import PaperTable, paper_tables
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
    facts = [run_facts(run, name) for run, name in zip(runs, short_names(runs), strict=True)]
    found, tables = findings(runs), paper_tables(runs)
    common = shared([fact.settings for fact in facts])
    versions = shared([fact.versions for fact in facts])
    context = {
        "facts": facts,
        "lead": _lead(facts, common),
        "findings": found,
        "counts": {outcome: sum(f.outcome == outcome for f in found) for outcome in Judgement},
        "remarks": remarks,
        "nonfinite": _nonfinite(facts),
        "columns": columns(facts),
        "attacks": compared_attacks(runs),
        "pictures": pictures(figures),
        "tables": [table for table in tables if table.measured],
        "unmeasured": [table.number for table in tables if not table.measured],
        "common": common,
        "own": [_without(fact.settings, common) for fact in facts],
        "versions": versions,
        "own_versions": [_without(fact.versions, versions) for fact in facts],
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


def _lead(facts: Sequence[RunFacts], common: Mapping[str, str]) -> dict[str, str]:
    """What all runs are of; the purifications are named where they differ."""
    attack = [common[key] for key in ("attack", "eps") if key in common]
    depth = [f"t* = {common['t_star']}"] if "t_star" in common else []
    found = {
        "Purification": ", ".join([*dict.fromkeys(fact.method for fact in facts), *depth]),
        "Attack": " at ".join(attack),
        "Data": ", ".join(common[key] for key in ("dataset", "data") if key in common),
        "Classifier": common.get("models: classifier: source", ""),
    }
    return {what: value for what, value in found.items() if value}


def _nonfinite(facts: Sequence[RunFacts]) -> str:
    """How often a number was not finite, in a sentence or two."""
    found = [
        f"{fact.name}: {label}, {count} of {of}"
        for fact in facts
        for label, (count, of) in fact.nonfinite.items()
        if count
    ]
    looked = sum(bool(fact.nonfinite) for fact in facts)
    where = f"{looked} of {len(facts)} run{'' if len(facts) == 1 else 's'}"
    said = "; ".join(found) or "there was none"
    return f"Infinite or missing numbers were looked for in {where}: {said}."


def _without(rows: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in rows.items() if name not in others}


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
    environment.filters |= {
        "breakable": _breakable,
        "named": _named,
        "notes": _notes,
        "lines": cell_lines,
    }
    here = Path(__file__).parent
    for name in ("page.css", "page.js"):
        environment.globals[name.replace(".", "_")] = Markup((here / name).read_text("utf-8"))
    return environment


def _breakable(words: str) -> Markup:
    """A path or a call that a narrow column may fold behind its slashes and brackets."""
    return Markup("<wbr>").join(map(escape, re.split(r"(?<=[/(])", words)))


def _named(number: str) -> str:
    """What a table of the paper is called."""
    return number if number.startswith("Fig") else f"Table {number}"


def _notes(table: PaperTable) -> dict[str, int]:
    """What differs from the paper, each once, numbered from 1."""
    said = (c.note for row in table.rows for c in row.cells if c.value is not None and c.note)
    return {note: number for number, note in enumerate(dict.fromkeys(said), 1)}

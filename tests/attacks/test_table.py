"""The table of attacks in the documentation names every attack and every overlay."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import documentation

from lit_purify import attacks

COLUMNS = ("attack", "`--config attack/...`", "threat model", "gradient", "cost", "known to break")


def rows() -> list[list[str]]:
    """The cells of the first table of the page, its heading first."""
    text = documentation.text("docs/attacks.md")
    table = re.search(r"(?m)(^\|.*\n)+", text)
    assert table is not None
    lines = [line.strip("|").split("|") for line in table[0].splitlines()]
    return [[cell.strip() for cell in line] for line in lines if set(line[0]) - set("- ")]


def test_it_stands_at_the_top_with_these_columns() -> None:
    heading, *body = rows()
    assert tuple(heading[: len(COLUMNS)]) == COLUMNS
    assert heading[-1] == "reference"
    assert all(len(row) == len(heading) and all(row) for row in body)


def test_every_attack_has_a_row() -> None:
    kinds = filter(inspect.isclass, (getattr(attacks, name) for name in attacks.__all__))
    exported = {
        kind.__name__
        for kind in kinds
        if issubclass(kind, attacks.Attack) and not inspect.isabstract(kind)
    }
    named = {name for row in rows()[1:] for name in re.findall(r"`(\w+)`", row[0])[:1]}
    assert not exported - named, f"docs/attacks.md has no row for {sorted(exported - named)}"
    assert not named - exported, f"docs/attacks.md names {sorted(named - exported)}, no attacks"


def test_every_overlay_has_a_row() -> None:
    folder = Path(documentation.ROOT, "configs", "attack")
    files = {path.stem for path in folder.glob("*.yaml")}
    named = {name for row in rows()[1:] for name in re.findall(r"`(\w+)`", row[1])}
    assert not files - named, f"docs/attacks.md has no row for {sorted(files - named)}"
    assert not named - files, f"docs/attacks.md names {sorted(named - files)}, no overlays"

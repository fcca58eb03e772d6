"""The embedded study: its page and tables are what its records give, byte for byte."""

import re
from pathlib import Path

import pytest

from lit_purify.cli import main

STUDY = Path(__file__).parents[1] / "results" / "embedded"


def without_pictures(page: bytes) -> bytes:
    """Other versions of Matplotlib draw the same in other bytes."""
    return re.sub(rb"data:image/[^\"]*", b"", page)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for folder in folders:
        page = folder / "report.html"
        assert main(["report", str(STUDY), f"--output={folder}", f"--html={page}"]) == 0
    return folders


@pytest.mark.parametrize("name", ["tables.md", "tables.tex", "tables.csv", "runs.csv", "law.json"])
def test_tables_are_those_of_the_records(made, name):
    assert (made[0] / name).read_bytes() == (STUDY / "report" / name).read_bytes()


def test_the_page_is_that_of_the_records(made):
    found, again = ((folder / "report.html").read_bytes() for folder in made)
    assert found == again
    kept = (STUDY / "report" / "report.html").read_bytes()
    assert without_pictures(found) == without_pictures(kept)
    assert len(without_pictures(kept)) < len(kept) < 5 * 2**20

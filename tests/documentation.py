"""The pages of the documentation as tests read them: commands, code blocks, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from lit_purify.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name != "CHANGELOG.md"
)
"""Pages that a reader follows, by their paths in the repository."""
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_VARIABLE = re.compile(r"[A-Z_]+=\S*")


def text(page: str) -> str:
    """A page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Its fenced blocks in a language."""
    return [code for found, code in _FENCED.findall(text(page)) if found == language]


def prose(page: str) -> str:
    """A page without its fenced and indented blocks."""
    return re.sub(r"(?m)^    .*$", "", _FENCED.sub("", text(page)))


def inline(page: str) -> list[str]:
    """What stands between backticks in its text, on one line."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def _lines(page: str) -> Iterator[str]:
    for language in ("", "bash"):
        for block in blocks(page, language):
            yield from block.replace("\\\n", " ").splitlines()
    yield from (line[4:] for line in re.findall(r"(?m)^    (?:python|make) .*$", text(page)))
    for code in inline(page):
        first, _, rest = code.partition(" ")
        yield f"python -m lit_purify {code}" if first in COMMANDS and rest else code


def commands(page: str) -> list[list[str]]:
    """The shell commands of a page, as words, without variables before them."""
    found = []
    for line in _lines(page):
        if not re.match(r"(\w+=\S+ )*(python|make|pip|torchrun|tensorboard|sbatch) ", line):
            continue
        words = shlex.split(line, comments=True)
        while _VARIABLE.fullmatch(words[0]):
            del words[0]
        found.append(words)
    return found


def purify(words: list[str]) -> list[str] | None:
    """What ``python -m lit_purify`` is given in a command, also by a launcher."""
    place = words.index("lit_purify") if "lit_purify" in words else 0
    return words[place + 1 :] if words[place - 1] == "-m" else None

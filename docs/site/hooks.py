"""What the site shows beside the pages of docs/: the files of the repository's top, the API.

The pages are written for a code host, where links are relative to the file. README.md is the home
page here; a page of the API has the public names of a room.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from rooms import DERIVED, ELSEWHERE, HOME, ROOMS, public

ROOT = Path(__file__).parents[2]
TOP = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""File at the top of the repository -> page."""


def derivations(room: str) -> str:
    """What the modules of a room say at their top, where it is more than a line."""
    options = "{members: false, heading_level: 3, show_root_heading: true}"
    modules = [
        path.stem
        for path in sorted((ROOT / "lit_purify" / room).glob("[a-z]*.py"))
        if "\n" in str(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    parts = [f"::: lit_purify.{room}.{module}\n    options: {options}\n" for module in modules]
    return "\n".join(["\n## Module by module\n", *parts])


def overview() -> str:
    """The page of the top level: where each of its names is documented, and what is only there."""
    names = [name for name in public("") if name in HOME]
    rows = [f"| [`lit_purify.{name}`][{HOME[name]}] | `{HOME[name]}` |" for name in names]
    parts = [f"::: lit_purify.{m}.{name}" for m, names in ELSEWHERE.items() for name in names]
    shown = "    options: {show_root_heading: true, show_root_toc_entry: true}"
    return "\n\n".join(
        [
            "# lit_purify",
            "What a user needs is exported by the package itself and loaded when it is first used.",
            "\n".join(["| name | documented as |", "|---|---|", *rows]),
            *(f"{part}\n{shown}" for part in parts),
        ]
    )


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    pages = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in TOP.items()}
    pages["api/index.md"] = overview()
    for room in ROOMS:
        pages[f"api/{room}.md"] = f"# lit_purify.{room}\n\n::: lit_purify.{room}\n" + (
            derivations(room) if room in DERIVED else ""
        )
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that are right on a code host to the pages of the site."""
    if page.parent is None:  # nothing beside it to go to
        page.meta.setdefault("hide", []).append("navigation")
    sources = {target: source for source, target in TOP.items()}
    path = page.file.src_uri
    folder = posixpath.dirname(sources.get(path, f"docs/{path}"))

    def led(match: re.Match[str]) -> str:
        file, hash_, anchor = match[1].partition("#")
        target = posixpath.normpath(posixpath.join(folder, file))
        target = TOP.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(path) or '.')}{hash_}{anchor})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", led, markdown)

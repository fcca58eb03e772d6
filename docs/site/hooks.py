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

ROOT = Path(__file__).parents[2]
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File at the top of the repository -> page."""
ROOMS = (
    *("attacks", "callbacks", "checkpoints", "classifiers", "data", "diffusion", "functional"),
    *("metrics", "purifiers"),
)
"""Rooms of the package that have a page."""
ELSEWHERE = {
    "api": ("evaluate", "purify", "Evaluation"),
    "defence": ("Defence",),
    "modules": ("PurifiedClassifier",),
}
"""Public names of the top level that are in no such room: their module -> names."""


def public(room: str) -> list[str]:
    """What ``__all__`` of a room says."""
    tree = ast.parse((ROOT / "lit_purify" / room / "__init__.py").read_text(encoding="utf-8"))
    (names,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return list(ast.literal_eval(names))


HOME = {
    **{name: f"lit_purify.{room}.{name}" for room in ROOMS for name in public(room)},
    **{name: f"lit_purify.{module}.{name}" for module, names in ELSEWHERE.items() for name in names},
}
"""Public name -> the path under which the site documents it."""


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
        pages[f"api/{room}.md"] = f"# lit_purify.{room}\n\n::: lit_purify.{room}\n"
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that are right on a code host to the pages of the site."""
    sources = {target: source for source, target in TOP.items()}
    path = page.file.src_uri
    folder = posixpath.dirname(sources.get(path, f"docs/{path}"))

    def led(match: re.Match[str]) -> str:
        file, hash_, anchor = match[1].partition("#")
        target = posixpath.normpath(posixpath.join(folder, file))
        target = TOP.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(path) or '.')}{hash_}{anchor})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", led, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the roles of docstrings, such as ``:class:`Attack```, into links where there is a page."""

    def linked(match: re.Match[str]) -> str:
        name = match[1].lstrip("~").rpartition(".")[2]
        code = f"<code>{name}</code>"
        return f'<a href="{HOME[name]}">{code}</a>' if name in HOME else code

    return re.sub(r":(?:attr|class|data|func|meth|mod):<code>([^<]*)</code>", linked, html)

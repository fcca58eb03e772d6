"""What the documentation says can be typed, and its links lead somewhere."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import documentation
import pytest
import torch
import yaml
from browser import BROWSER, browser
from documentation import PAGES, ROOT
from script_files import load_script

from lit_purify.cli import COMMANDS, main
from lit_purify.cli import report as report_command
from lit_purify.cli import weights as weights_command
from lit_purify.cli.predict_robustness import arguments_of_test
from lit_purify.records import read_summary

BASES = (
    ["test", "--config", "cifar_fixed"],
    ["test", "--config", "imagenet_fixed"],
    ["test", "--config", "cifar_fixed", "--config", "attack/strongest"],
    ["test", "--config", "cifar_fixed", "--config", "attack/autoattack"],
    ["test", "--config", "cifar_fixed", "--config", "defence/gdmp"],
    ["test", "--config", "cifar_fixed", "--config", "purifier/ode"],
    ["test", "--config", "cifar_fixed", "--config", "purifier/edm"],
    ["fit", "--config", "train_cifar_small"],
    ["predict", "--config", "predict"],
    ["test", "--config", "cifar_fixed", "--config", "data/tiny_imagenet"],
    ["test", "--config", "cifar_fixed", "--config", "data/celeba_hq"],
    ["test", "--config", "cifar_fixed", "--config", "data/cifar100"],
    [*("test", "--config", "cifar_fixed"), "--data=lit_purify.data.NPZDataModule"],
    ["test", "--config", "demo", "--model.purifier", "noisy_blur.NoisyBlur"],
)
"""What options that are named in a text may belong to."""
PLACEHOLDER = re.compile(r"[A-Z]{4,}|\.\.\.|my_file|CONFIG|--a\.b\.c")
"""In options that stand for others."""


def link_targets(page: str) -> list[str]:
    """Where links and pictures of a page lead, those of this repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", documentation.prose(page))
    return [target for target in found if not re.match(r"\w+:", target)]


def anchors(page: str) -> set[str]:
    """Anchors of its headings, as code hosts name them."""
    code_free = re.sub(r"(?ms)^```.*?^```$", "", documentation.text(page))
    headings = re.findall(r"(?m)^#+ (.*)$", code_free)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in link_targets(page):
        file, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert path.is_file(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(path.relative_to(ROOT).as_posix()), f"{page}: {target}"


def test_every_page_and_picture_is_reached():
    reached = {
        ((ROOT / page).parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in link_targets(page)
    }
    nav = (ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8")
    for path in (*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.png")):
        name = path.relative_to(ROOT / "docs").as_posix()
        assert path in reached or f" {name}\n" in nav, f"nothing leads to {name}"


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A working directory with the files that the pages have a reader save, and a run."""
    for page in ("README.md", "docs/tutorial.md"):
        for code in documentation.blocks(page, "python"):
            if named := re.match(r"# (\w+\.py)\n", code):
                (tmp_path / named[1]).write_text(code)
    (tmp_path / "space.yaml").write_text(documentation.blocks("docs/tutorial.md", "yaml")[0])
    (tmp_path / "FILE.yaml").write_text(documentation.blocks("docs/search.md", "yaml")[0])
    (tmp_path / "my_study.yaml").write_text(documentation.blocks("docs/sweeps.md", "yaml")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in ("my_purifier", "my_classifier", "my_denoiser", "noisy_blur"):
        sys.modules.pop(module, None)


class Parsed(Exception):
    """A parser took its arguments."""


def parse_run(words: Sequence[str]) -> str:
    """Have the command line parse the arguments of a run, and print its configuration only."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            shows = any(word.endswith("help") for word in words)  # and ends
            status = main([*words] if shows else [*words, "--print_config"])
        except SystemExit as ended:
            status = ended.code
    assert status == 0, said.getvalue()
    return printed.getvalue()


def parse_purify(words: list[str], folder: Path) -> None:
    """Have its parser take a command of this package."""
    name = words[0]
    if name in ("sweep", "search"):
        assert main([*words, "--list"]) == 0
    elif name == "report":
        report_command.parser().parse_args(words[1:])
    elif name == "weights":
        weights_command.parser().parse_args(words[1:])
    elif name == "predict-robustness":
        parse_run(arguments_of_test(words[1:])[0])
    elif "--resume" in words:
        run = folder / words[words.index("--resume") + 1]
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(parse_run(BASES[0]))
        parse_run(words)
    elif words[1:]:
        for overlay in [word for word in words if word.endswith("/overlay.yaml")]:
            (folder / overlay).parent.mkdir(parents=True)
            (folder / overlay).write_text("model: {init_args: {seed: 1}}")
        parse_run(words)
    assert name in COMMANDS


def parse_script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have its parser take the arguments of a script, which then does nothing."""
    whole = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        whole(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises((Parsed, SystemExit)) as ended:
        load_script(Path(words[0]).stem).main()
    assert ended.type is Parsed or ended.value.code == 0  # --help


@pytest.mark.parametrize("page", [page for page in PAGES if documentation.commands(page)])
def test_commands_parse(page, reader, monkeypatch, capsys):
    extras = tomllib.loads(documentation.text("pyproject.toml"))["project"]["optional-dependencies"]
    for words in documentation.commands(page):
        program, *arguments = words
        if (its := documentation.purify(words)) is not None:
            parse_purify(its, reader)
        elif program == "make":
            targets = re.findall(r"(?m)^([\w-]+):", documentation.text("Makefile"))
            assert set(arguments) <= set(targets)
        elif program == "pip":
            assert {e for w in words for e in re.findall(r"\[(\w+)\]", w)} <= set(extras)
        elif program == "sbatch":
            assert (ROOT / arguments[0]).is_file()
        elif program == "tensorboard":
            assert arguments == ["--logdir", "lightning_logs"]
        elif arguments[0] == "-c":
            exec(arguments[1], {})
            assert len(capsys.readouterr().out) > 100
        else:
            with monkeypatch.context() as patched:
                parse_script(arguments, patched)


@pytest.mark.slow
def test_options_parse(reader):
    pages = {
        option: page
        for page in PAGES
        for option in documentation.inline(page)
        if re.match(r"--(config|data|model|attack|measure|trainer)\S* ", option)
        and not PLACEHOLDER.search(option)
    }
    assert len(pages) > 30
    for option, page in pages.items():
        words = [word.strip("\"'") for word in option.split()]
        for base in BASES:
            with contextlib.suppress(AssertionError):
                parse_run([*base, *words])
                break
        else:
            pytest.fail(f"{page}: {option} is no option of any of {BASES}")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation as a site; ten seconds."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        [*command, "--config-file", str(ROOT / "docs/site/mkdocs.yml")],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_needs_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:img|script|iframe|source)\b[^>]*\bsrc=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"?([^\" >]+)", text)
        assert loaded
        for address in loaded:
            assert "//" not in address, f"{page.name} loads {address}"
            start = site if address.startswith("/") else page.parent  # the page of a wrong address
            if address != ".":
                assert (start / address.lstrip("/")).is_file(), (page.name, address)
    for style in site.rglob("*.css"):
        assert "@import" not in style.read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_public_name_has_a_place_in_the_site(site):
    inventory = {
        line
        for page in (site / "api").glob("*.html")
        for line in re.findall(r'id="(lit_purify[\w.]*)"', page.read_text(encoding="utf-8"))
    }
    public = {
        f"lit_purify.{room}.{name}"
        for room in ("attacks", "callbacks", "data", "diffusion", "functional", "purifiers")
        for name in importlib.import_module(f"lit_purify.{room}").__all__
    }
    assert public <= inventory


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser here")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_as_wide_as_the_window(site, width, tmp_path):
    with browser(tmp_path) as tab:
        for page in ("index", "tutorial", "hardware", "measurements/masking", "api/functional"):
            tab.open(site / f"{page}.html", width=width)
            assert tab.run("document.documentElement.scrollWidth <= innerWidth"), page
            assert not [each for each in tab.requests if not each.startswith(("file:", "data:"))]
            assert not tab.complaints


@pytest.mark.slow
def test_the_tutorial_runs_from_its_first_command_to_its_last(reader, monkeypatch):
    """All of its commands one after another in one folder, two images, weak attacks."""
    demo = re.search(r"-m lit_purify (.*configs/demo.yaml)", documentation.text("Makefile"))
    few = ["--attack.steps=1", "--trainer.accelerator=cpu"]
    space = yaml.safe_load((reader / "space.yaml").read_text()) | {"images": [1, 2]}
    space["groups"]["presets"]["preset"]["options"]["num_steps"] = 1
    (reader / "space.yaml").write_text(yaml.safe_dump(space))
    ran = []
    for words in documentation.commands("docs/tutorial.md"):
        its = demo[1].split() if words == ["make", "demo"] else documentation.purify(words)
        if its is None:  # tensorboard
            continue
        its = ["demo" if word == "configs/demo.yaml" else word for word in its]
        small = few if its[0] != "report" else []
        if its[0] in ("test", "predict-robustness"):
            small = [*small, "--data.limit=2"]
        if its == ["test", "--config", "demo"]:
            small = [*small, "--model.purifier.num_steps=1"]
        if "measure/masking" in its:
            small = [*small, "--measure.masking.longer=2"]
        assert main([*its, *small]) == 0, its
        ran.append(its[0])
    assert {*ran} == {"test", "report", "predict-robustness", "search"}
    logs = reader / "lightning_logs"
    own = read_summary(logs / "version_1" / "summary.json")
    assert own["settings"]["purifier"] == "NoisyBlur"
    assert (reader / "comparison.html").stat().st_size > 10_000
    assert yaml.safe_load((logs / "my_search" / "overlay.yaml").read_text())


@pytest.mark.slow
def test_the_calls_from_python(capsys):
    names: dict[str, Any] = {"images": torch.rand(2, 3, 32, 32), "indices": torch.arange(2)}
    for code in documentation.blocks("docs/python.md", "python"):
        exec(code.replace("num_steps=10", "num_steps=2"), names)
    assert names["purified"].shape == (2, 3, 32, 32)
    assert names["logits"].shape == (2, 10)

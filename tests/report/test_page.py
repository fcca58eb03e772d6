"""The report as a page: what it says, that it needs nothing else, and how a browser shows it."""

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import BROWSER, browser
from PIL import Image
from safetensors.numpy import save_file

from lit_purify.cli import main
from lit_purify.records import versions, write_summary
from lit_purify.records.header import new_header, write_header
from lit_purify.records.runs import read_runs
from lit_purify.report.page import build
from lit_purify.report.page import page as page_of
from lit_purify.report.page.gallery import gallery
from lit_purify.statistics import wilson_interval
from lit_purify.types import InputError

NASTY = "<b>&\"'</b>"
PROTOCOLS = ("base", "blind", "fixed", "transfer", "fresh")
NAMES = ("cat", "dog", f"bird {NASTY}")
RIGHT = {  # of the three images; the first is wrong without an attack
    "base": (False, False, False),
    "blind": (False, True, True),
    "fixed": (False, False, True),
    "transfer": (False, True, True),
    "fresh": (False, True, True),
}


def share(hits, n=100):
    low, high = wilson_interval(hits, n)
    return {"value": hits / n, "low": low, "high": high, "n": n}


def mean(value, half):
    return {"value": value, "low": value - half, "high": value + half, "std": half, "n": 100}


def write_run(folder, *, rate=0.2, images=True, size=8, count=3, **changes):
    """A finished run in a folder, with its records."""
    settings = {
        **{"purifier": "DiffusionPurifier", "sampler": "DDPMSampler", "t_star": 100},
        **{"forward_process": "stepwise", "num_steps": 10, "attack": "PGD", "eps": 8 / 255},
        **{"data": "embedded", "images": count, "seed": 0, "protocols": list(PROTOCOLS)},
        "models": {"classifier": {"source": f"classifier {NASTY}", "sha256": "c" * 64}},
    } | changes
    metrics = {
        "base/clean_accuracy": share(94),
        "base/robust_accuracy": share(0),
        "purified/clean_accuracy": share(80),
        "blind/robust_accuracy": share(75),
        "fixed/robust_accuracy": share(20),
        "fixed/robust_nonfinite": share(3),
        "transfer/robust_accuracy": share(70),
        "fresh/robust_accuracy": share(60),
        "uniform/compression_rate": mean(rate, 0.01),
        "distance/l2_init": mean(1.1, 0.1),
        "distance/l2_end": mean(3.6, 0.2),
    }
    header = new_header({"config": None, "settings": settings}, count)
    header["status"] = "finished"
    header["sessions"] = [{"started": "2026-01-02T03:04:05+00:00", "device": "cpu"}]
    write_header(folder / "records", header)
    summary = {
        **{"status": "finished", "versions": versions(), "settings": settings},
        **{"metrics": metrics, "labels": {}, "class_names": NAMES},
        "flags": [f"Something {NASTY} is odd."],
    }
    write_summary(folder / "summary.json", summary)
    if images:
        save_file(tensors(count, size), folder / "records" / "tensors.safetensors")
    return folder


def tensors(count, size):
    """Records of images whose perturbation has a known size."""
    clean = np.random.default_rng(0).integers(40, 200, (count, 3, size, size), np.uint8)
    label = np.arange(count) % 3
    found = {"index": np.arange(count), "label": label, "image/clean": clean}
    for surface in ("base", "fixed", "fresh"):
        found[f"{surface}/adversarial"] = (clean / np.float32(255)) + np.float32(8 / 255)
    for name in ("purified", "blind", "fixed", "transfer", "fresh"):
        found[f"image/{name}"] = clean // 2
    found["base/clean_prediction"] = found["purified/clean_prediction"] = np.where(
        label == 0, 1, label
    )
    for protocol, right in RIGHT.items():
        wanted = np.array(right)[label]
        found[f"{protocol}/robust_prediction"] = np.where(wanted, label, (label + 1) % 3)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The page of two runs, in a file."""
    folder = tmp_path_factory.mktemp("page")
    runs = [write_run(folder / f"run {NASTY}".replace("/", "") / "a")]
    runs += [write_run(folder / "b", rate=0.3, seed=1, images=False)]
    out, file = str(folder / "out"), folder / "page.html"
    assert main(["report", *map(str, runs), "--output", out, "--html", str(file)]) == 0
    return file


class Elements(HTMLParser):
    """Every element with its attributes, and the text between tags, without styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self._raw = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._raw = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.text += data

    def all(self, attribute):
        return [a[attribute] for _, a in self.found if attribute in a]


@pytest.fixture(scope="module")
def page(made):
    return Elements(made.read_text(encoding="utf-8"))


class TestWhatItSays:
    def test_the_verdict_comes_first(self, page):
        text = " ".join(page.text.split())
        verdict, finding, *rest = (
            text.index(words)
            for words in (
                "Of the paper’s 5 findings, 2 hold, 3 cannot be told.",
                "1.10 (1.00 to 1.20) before purification, 3.60 (3.40 to 3.80) after.",
                *("is odd.", "Each number stands above", "Table 2:", "Image 0"),
                "Settings, versions",
            )
        )
        assert [verdict, finding, *rest] == sorted([verdict, finding, *rest])

    def test_settings_versions_hashes_flags_and_what_is_not_finite(self, page):
        for words in (
            "c" * 64,
            versions()["torch"],
            "2026-01-02T03:04:05",
            f"Something {NASTY} is odd.",
            "fixed/robust_nonfinite, 3 of 100",
        ):
            assert words in page.text

    def test_the_papers_value_stands_beside_the_measured_one(self, page):
        text = " ".join(page.text.split())
        assert re.search(r"Table 2: .* 23.7 ± 0.7 ?20.0 ± 0.0 \[13.3, 28.9\]", text)

    def test_whatever_a_run_is_called_is_text(self, made, page):
        assert NASTY in page.text
        assert "<b>&" not in made.read_text(encoding="utf-8")

    def test_what_is_missing_is_said(self, page):
        assert "No images are recorded." in page.text

    def test_attacks_on_one_defence_stand_beside_each_other(self, tmp_path, page):
        assert "Attacks on one defence" not in page.text
        others = {"PGD": [1, 1, 0], f"Other {NASTY}": [1, 0, 0]}
        for number, (attack, right) in enumerate(others.items()):
            folder = write_run(tmp_path / str(number), attack=attack, images=False)
            rows = [{"index": k, "fixed/robust_accuracy": x} for k, x in enumerate(right)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "records" / "rows.jsonl").write_text(lines)
        runs, _ = read_runs([tmp_path / "0", tmp_path / "1"])
        text = " ".join(Elements(page_of(runs, {})).text.split())
        attacks = text[text.index("Attacks on one defence") :]
        for words in (f"Other {NASTY}", "-33.3", "-79.2 to +41.5"):
            assert words in attacks


class TestTheFile:
    def test_the_same_records_give_the_same_bytes(self, tmp_path):
        one, two = (
            page_of(read_runs([write_run(tmp_path / name / "run")])[0], {})
            for name in ("one", "two")
        )
        assert one == two
        assert str(tmp_path) not in one

    def test_it_needs_nothing_else(self, made, page):
        text = made.read_text(encoding="utf-8")
        assert not re.search(r"(?i)\b(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", text))
        assert {tag for tag, _ in page.found} & {"link", "iframe", "object", "base"} == set()
        assert all(source.startswith("data:image/") for source in page.all("src"))
        assert "default-src 'none'" in page.all("content")[-1]

    def test_its_links_and_ids(self, page):
        ids = page.all("id")
        assert len(ids) == len(set(ids))
        assert {link.removeprefix("#") for link in page.all("href")} <= set(ids)
        named = {name for names in page.all("aria-labelledby") for name in names.split()}
        assert named <= set(ids)

    def test_its_images_are_described_and_its_headings_in_order(self, page):
        images = [attributes for tag, attributes in page.found if tag == "img"]
        assert images
        assert all(image["alt"].strip() for image in images)
        levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))

    def test_many_images_do_not_make_it_large(self, tmp_path, monkeypatch):
        monkeypatch.setattr(build, "LARGEST", 400_000)
        folders = (write_run(tmp_path / str(n), size=16, count=20, seed=n) for n in range(3))
        runs, _ = read_runs(folders)
        text = page_of(runs, {})
        assert 200_000 < len(text.encode()) < 400_000
        assert text.count("of 20 images, so that the page stays small") == 3
        monkeypatch.setattr(build, "LARGEST", 10_000)
        with pytest.raises(InputError, match="fewer runs"):
            page_of(runs, {})

    def test_damaged_records_are_refused(self, tmp_path):
        run = write_run(tmp_path / "run")
        (run / "records" / "tensors.safetensors").write_bytes(b"damaged")
        with pytest.raises(InputError, match="damaged"):
            page_of(read_runs([run])[0], {})


class TestTheImages:
    def gallery(self, folder, size=8, room=10**6):
        tensors = write_run(folder, size=size) / "records" / "tensors.safetensors"
        return gallery(tensors, NAMES, room)

    def test_what_became_of_each(self, tmp_path):
        found = self.gallery(tmp_path)
        assert found.protocols == list(PROTOCOLS)
        outcomes = {
            protocol: [sample.views[place].outcome for sample in found.samples]
            for place, protocol in enumerate(PROTOCOLS)
        }
        assert outcomes == {
            "base": ["wrong", "fooled", "fooled"],
            "blind": ["wrong", "right", "right"],
            "fixed": ["wrong", "fooled", "right"],
            "transfer": ["wrong", "right", "right"],
            "fresh": ["wrong", "right", "right"],
        }
        assert found.samples[1].label == "dog"
        assert found.samples[1].views[2].words == f"clean: dog, attacked: {NAMES[2]}"

    def test_pictures_are_the_pixels_of_the_records(self, tmp_path):
        found = self.gallery(tmp_path)
        tiles = {tile.title: pixels(tile.uri) for tile in found.samples[0].views[1].tiles}
        clean = tensors(3, 8)["image/clean"][0].transpose(1, 2, 0)
        assert list(tiles) == [
            *("clean", "adversarial", "added by the attack, ×10"),
            *("purified clean", "purified adversarial", "left of it, ×100"),
        ]
        assert np.array_equal(tiles["clean"], clean)
        assert np.array_equal(tiles["adversarial"], clean + 8)
        assert np.array_equal(tiles["purified clean"], clean // 2)
        assert np.all(abs(tiles["added by the attack, ×10"] - (127.5 + 80.0)) <= 1)
        assert np.all(abs(tiles["left of it, ×100"] - 127.5) <= 1)

    def test_records_of_adversarial_images_alone(self, tmp_path):
        alone = {k: v for k, v in tensors(3, 8).items() if not k.startswith("image/")}
        save_file(alone, tmp_path / "tensors.safetensors")
        found = gallery(tmp_path / "tensors.safetensors", [], 10**6)
        (view,) = {tuple(tile.title for tile in s.views[0].tiles) for s in found.samples}
        assert view == ("adversarial",)
        assert found.samples[0].label == "class 0"
        assert "not recorded" in " ".join(found.notes)

    def test_large_images_lose_detail_and_that_is_said(self, tmp_path):
        found = self.gallery(tmp_path, size=72, room=10**7)
        assert found.samples[0].views[0].tiles[0].uri.startswith("data:image/webp")
        assert "with loss" in " ".join(found.notes)


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).astype(int)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A tab of a browser."""
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


FITS = "document.documentElement.scrollWidth <= innerWidth"
SHOWN = "[...document.querySelectorAll('.sample')].filter(s => s.checkVisibility()).length"
CONTRAST = """
(() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll("p, a, h2, summary, .badge, .seen, small")]
    .filter((e) => !e.closest(".controls")).map((e) => light(getComputedStyle(e).color))
    .map((l) => (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05)));
})()
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
class TestInABrowser:
    @pytest.mark.parametrize("width", [360, 1280])
    @pytest.mark.parametrize("scripts", [True, False])
    def test_it_fits_and_asks_for_nothing(self, made, tab, width, scripts):
        tab.open(made, width=width, scripts=scripts)
        assert tab.run(FITS)
        assert {url.partition(":")[0] for url in tab.requests} == {"file", "data"}
        assert sum(url.startswith("file:") for url in tab.requests) == 1
        assert tab.complaints == []

    def test_without_scripts_every_image_is_there(self, made, tab):
        tab.open(made, width=1280, scripts=False)
        tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.run(SHOWN) == 3

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_words_stand_out_from_the_ground(self, made, tab, scheme):
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        tab("Emulation.setEmulatedMedia", features=wanted)
        tab.open(made, width=1280)
        assert tab.run(CONTRAST) >= 4.5
        ground = tab.run("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        tab("Emulation.setEmulatedMedia", features=[])

    def test_keys_alone_lead_through_it(self, made, tab):
        tab.open(made, width=1280)
        tab.press("Tab")
        assert tab.run("document.activeElement.textContent") == "Skip to the verdict"
        assert tab.run("document.activeElement.getBoundingClientRect().left") >= 0
        assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.press("Enter")
        assert tab.wait("location.hash === '#verdict'")

        count = "document.querySelector('.count').textContent"
        tab.run("document.querySelector('.viewer').focus()")
        assert tab.run(count) == "image 1 of 3"
        assert tab.run(SHOWN) == 1
        for key, place in (("ArrowRight", 2), ("End", 3), ("ArrowRight", 3), ("ArrowLeft", 2)):
            tab.press(key)
            assert tab.run(count) == f"image {place} of 3"
        assert "Image 1: dog" in tab.run("document.querySelector('.sample:not(.away)').innerText")
        self.press_button(tab, "fooled (1)")
        assert tab.run(count) == "image 1 of 1"
        self.press_button(tab, "right (1)")
        assert "bird" in tab.run("document.querySelector('.sample:not(.away)').innerText")
        self.press_button(tab, "base")
        assert tab.run(count) == "no such image"
        assert tab.run(SHOWN) == 0

    @staticmethod
    def press_button(tab, text):
        for _ in range(20):
            tab.press("Tab")
            if tab.run("document.activeElement.textContent") == text:
                tab.press(" ")
                assert tab.run("document.activeElement.getAttribute('aria-pressed')") == "true"
                tab.run("document.querySelector('.viewer').focus()")
                return
        raise AssertionError(f"no button {text} was reached")

    def test_a_link_opens_what_it_leads_to(self, made, tab):
        tab.open(made, width=1280)
        assert not tab.run("document.getElementById('run-2').open")
        tab.run("document.querySelector('a[href=\"#run-2\"]').focus()")
        tab.press("Enter")
        assert tab.wait("document.getElementById('run-2').open")

    def test_on_paper_everything_is_open(self, made, tab):
        tab.open(made, width=1280)
        tab.run(
            "addEventListener('beforeprint', () => { window.seen = "
            "[...document.querySelectorAll('details')].every(d => d.open) })"
        )
        assert tab.pdf().startswith(b"%PDF")
        assert tab.run("window.seen")
        tab("Emulation.setEmulatedMedia", media="print")
        assert tab.run(SHOWN) == 3
        assert not tab.run("document.querySelector('.controls').checkVisibility()")
        tab("Emulation.setEmulatedMedia", media="")

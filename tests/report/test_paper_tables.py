"""Which runs feed a value of the paper, and how far they are apart from it, on constructed runs."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest

from lit_purify.checkpoints.denoisers import OFFICIAL
from lit_purify.diffusion import CosineSchedule, LinearSchedule
from lit_purify.paper import PAPER_ATTACKED, PAPER_CENTROID, PAPER_UNIFORM, PRINTED_TABLES
from lit_purify.records.runs import FinishedRun
from lit_purify.report.matching import _MODELS, seeds_of_one
from lit_purify.report.paper_tables import paper_tables
from lit_purify.report.paper_text import paper_console, paper_csv, paper_latex, paper_markdown

PAPER = {
    **{"sampler": "DDPMSampler", "forward_process": "stepwise", "t_star": 100, "num_steps": 100},
    **{"attack": "PGD", "eps": 8 / 255, "steps": 40, "rel_stepsize": 0.01 / 0.3, "seed": 0},
    **{"data": "embedded", "images": 1000, "uniform_eps": 8 / 255},
    "models": {
        "denoiser": {"source": OFFICIAL["ddpm_cifar10"]},
        "classifier": {"source": "RobustBench cifar10/Linf/Standard"},
    },
}
"""Settings of the paper's own run."""


def run(name, value=0.25, metric="fixed/robust_accuracy", half=0.02, **settings):
    entry = {"value": value, "low": value - half, "high": value + half, "n": 1000}
    return FinishedRun(Path("runs") / name, PAPER | settings, {metric: entry}, "")


def cell(runs, table="6", row="DDPM", column="PGD, fixed noise (%)"):
    (found,) = [found for found in paper_tables(runs) if found.number == table]
    (line,) = [c for labels, name, c in found.lines() if name == column and row in (*labels, None)]
    return line


class TestTheDifference:
    def test_it_is_in_standard_errors_of_both(self):
        found = cell([run("a")])
        of_run = 2 / 1.959964
        of_paper = 100 * math.sqrt(0.237 * 0.763 / 1000)
        rounding = 0.05 / math.sqrt(3)
        expected = (25.0 - 23.7) / math.sqrt(of_run**2 + of_paper**2 + rounding**2)
        assert found.difference_se == pytest.approx(expected, rel=1e-6)
        assert found.difference == "+0.8 se"
        assert found.measured == "25.0 [23.0, 27.0]"
        assert (found.paper, found.note, found.seeds) == ("23.7", "", 1)

    def test_seeds_are_averaged_and_spread(self):
        runs = [run(f"s{seed}", 0.23 + seed / 100, seed=seed) for seed in range(3)]
        found = cell(runs)
        assert found.measured == "24.0 ± 1.0 [22.0, 26.0]"
        assert found.seeds == 3
        assert found.runs == ("s0", "s1", "s2")
        assert abs(found.difference_se) < abs(cell([run("one", 0.24)]).difference_se)

    def test_a_rounded_print_is_no_difference(self):
        """0.0314 is printed 0.031 with ± 0.000."""
        half = 1e-9
        found = run("a", 8 / 255, "distance_uniform_8/linf_init", half)
        assert cell([found], "S4", "uniform 8/255", "before").difference_se < 1.5

    def test_an_average_over_noises_is_not_the_papers(self):
        averaged = {"averaged": "images", "averaged_draws": 4}
        assert cell([run("a", purifier_options=averaged)]).value is None
        found = cell([run("a", purifier_options=averaged), run("b", 0.24)])
        assert (found.value, found.runs) == (pytest.approx(24.0), ("b",))

    def test_the_interval_of_a_frechet_distance_is_unknown(self):
        found = FinishedRun(Path("a"), PAPER, {"quality/fid_after": {"value": 0.12}}, "")
        found = cell([found], "1", "DDPM", "FID after")
        assert (found.measured, found.difference) == ("0.120", "")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"models": {"denoiser": {"source": "small"}}}, "other models"),
        ({"num_steps": 10}, "10 chain steps"),
        (CosineSchedule(4000).settings(), "schedule"),
        ({"eps": 2 / 255}, "eps 2/255"),
        ({"steps": 10}, "10 attack steps"),
        ({"rel_stepsize": 0.1}, "0.1 eps"),
        ({"random_start": False}, "random start"),
        ({"precision": "bf16-mixed"}, "bf16-mixed"),
        ({"tf32": True}, "TF32"),
        ({"forward_process": "one_shot"}, "one draw"),
        ({"attack_precision": "tf32"}, "tf32"),
        ({"early_stop": True}, "stopped early"),
        ({"norm": "L2"}, "norm L2"),
        ({"targets": 9, "keep": "best"}, "targets 9"),
    ],
)
def test_what_differs_is_said_and_not_compared(settings, word):
    found = cell([run("a", **settings)])
    assert word in found.note
    assert found.value == pytest.approx(25.0)
    assert found.difference_se is None
    assert cell([run("a", **settings), run("b", 0.2)]).measured.startswith("20.0")  # the nearest


@pytest.mark.parametrize(
    "settings",
    [
        {"t_star": 50},
        {"attack": "BPDA"},
        {"sampler": "DDIMSampler"},
        {"forward_process": "none"},
        {"data": "my_images"},
        {"data": "torchvision", "dataset": "CIFAR-100"},
        {"data": "foolbox", "data_preprocessing": "x"},
        {"protocols": []},
        {"sampler_options": {"eta": 1.0}},
    ],
)
def test_another_experiment_feeds_nothing(settings):
    assert cell([run("a", **settings)]).value is None


def test_the_papers_schedule_is_no_difference():
    assert cell([run("a", **LinearSchedule().settings())]).difference_se is not None


def test_runs_that_are_no_seeds_of_one_another_are_named():
    found = cell([run("a", images=1000), run("b", images=500), run("far", num_steps=10)])
    assert found.value is None
    assert found.note.endswith("another: a; b")
    again = cell([run("a"), run("b", 0.3)])  # one seed and two values
    assert again.value is None
    surrogates = [run(f"{k}", seed=k, surrogate={"t_star": k}) for k in (1, 2)]
    assert cell(surrogates).note.endswith("another: 1; 2")
    versions = [run(name, seed=k, version=name) for k, name in enumerate(("plus", "standard"))]
    assert cell(versions).note.endswith("another: plus; standard")
    twice = cell([run("a"), run("b")])
    assert (twice.seeds, twice.runs) == (1, ("a",))


def test_ladders_of_two_budgets_are_no_seeds_of_one_another():
    runs = [run(f"{k}", seed=k, attack="Ladder", budget=budget) for k, budget in ((1, 5), (2, 9))]
    assert [len(alike) for alike in seeds_of_one(runs)] == [1, 1]
    runs = [run(f"{k}", seed=k, attack="Ladder", budget=5) for k in (1, 2)]
    assert [len(alike) for alike in seeds_of_one(runs)] == [2]


def test_an_attack_that_does_not_say_its_norm_is_the_plain_one():
    """As in runs of versions that knew no other."""
    plain = {"norm": "Linf", "loss": "cross_entropy", "targets": "none", "restarts": 1}
    found = cell([run("a"), run("b", seed=1, **plain)])
    assert (found.seeds, found.note) == (2, "")


def test_an_early_stop_leaves_the_accuracy_at_any_iteration():
    found = cell([run("a", metric="fixed/robust_accuracy_any_iteration", early_stop=True)])
    assert found.measured.startswith("25.0")
    assert "every iteration" in found.note


def test_the_surface_of_a_distance_is_told():
    fixed = run("a", 1.4, "distance/l2_init")
    found = cell([fixed], "S3", "PGD (full)", "before")
    assert "fixed noise" in found.note
    fresh = run("a", 1.08, "distance/l2_init", distance_surface="fresh")
    found = cell([fresh], "S3", "PGD (full)", "before")
    assert found.note == ""
    assert found.difference_se is not None


class TestThePrint:
    def test_every_table_is_there_in_its_order(self):
        numbers = [table.number for table in PRINTED_TABLES]
        assert numbers == [*"1234567", "S2", "S3", "S4", "S5", "S6", "Fig. 2", "Fig. 3a"]
        for table in PRINTED_TABLES:
            for row in table.rows:
                assert len(row.cells) == len(table.columns)
                assert len(row.labels) == len(table.labels)

    def test_what_is_printed_twice_is_alike(self):
        values = {
            (table.number, row.labels, cell.metric): cell.value
            for table in PRINTED_TABLES
            for row in table.rows
            for cell in row.cells
        }
        for norm, number in (("l2", "S3"), ("linf", "S4")):
            rows = {("PGD (full)",): ("distance", PAPER_ATTACKED["ddpm"])}
            rows |= {
                (f"uniform {level}/255",): (f"distance_uniform_{level}", distances)
                for level, distances in PAPER_UNIFORM.items()
            }
            for labels, (name, distances) in rows.items():
                places = zip(("init", "max", "end"), getattr(distances, norm), strict=True)
                for place, value in places:
                    assert values[number, labels, f"{name}/{norm}_{place}"] == value
        for name, value in PAPER_CENTROID.items():
            assert values["S6", (), name] == value
        for method in ("DDPM", "Reverse"):
            for metric in ("uniform/compression_rate", "fixed/robust_accuracy"):
                assert values["6", (method,), metric] == values["7", (method, "100"), metric]

    def test_its_models_are_those_that_a_run_names(self):
        for name, dataset in (
            ("ddpm_cifar10", "cifar10"),
            ("google_ddpm_cifar10_32", "cifar10"),
            ("guided_diffusion_256_uncond", "imagenet"),
        ):
            assert OFFICIAL[name].startswith(_MODELS[dataset]["denoiser"])


class TestTexts:
    @pytest.fixture
    def tables(self):
        return paper_tables([run("a_b"), run("c", 0.2, num_steps=10, t_star=50)])

    def test_every_value_is_a_line_of_csv(self, tables):
        rows = list(csv.DictReader(io.StringIO(paper_csv(tables))))
        assert len(rows) == sum(len(row.cells) for table in PRINTED_TABLES for row in table.rows)
        found = [row for row in rows if row["value"] and row["table"] == "7"]
        assert [(row["row"], row["value"], row["runs"]) for row in found] == [
            ("DDPM, 50", "20", "c"),
            ("DDPM, 100", "25", "a_b"),
        ]

    def test_notes_stand_below_their_table(self, tables):
        text = paper_markdown(tables)
        (table,) = [part for part in text.split("## ") if part.startswith("Table 7")]
        assert "20.0 [18.0, 22.0] (1) |  |" in table
        assert "| +0.8 se |" in table
        assert "\n1. 10 chain steps" in table

    def test_latex_escapes_what_it_would_read(self, tables):
        text = paper_latex(tables)
        assert text.count("\\begin{tabular}") == text.count("\\bottomrule") == len(tables)
        assert "clean accuracy (\\%)" in text
        assert "$\\pm$" in text
        assert "l\\_inf" in text
        assert "±" not in text

    def test_the_terminal_has_what_was_measured(self, tables):
        titles = [str(table.title) for table in paper_console(tables)]
        assert [title.partition(":")[0] for title in titles] == ["Table 2", "Table 6", "Table 7"]

"""The report over many runs: from summaries that lie on a known curve to table, files, messages."""

import csv
import io
import json
import math

import pytest

from lit_purify.cli import main
from lit_purify.functional import wilson_interval
from lit_purify.records import read_summary, versions, write_summary
from lit_purify.records.runs import disagreements, read_runs, short_names
from lit_purify.report.comparison import report
from lit_purify.report.runs_table import runs_csv

K, M, N = 15.0, 0.18, 10**9  # so many images that the accuracies lie on the curve
DEPTHS = {20: 0.35, 50: 0.25, 100: 0.2, 150: 0.15, 200: 0.1}


def share(value, n=N):
    low, high = wilson_interval(value * n, n)
    return {"value": value, "low": low, "high": high, "n": n}


def mean(value):
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "std": 0.1, "n": N}


def accuracy(rate):
    return 1 / (1 + math.exp(K * (rate - M)))


def write_run(folder, t_star=100, rate=0.2, status="finished", version=None, **changes):
    """A run as its summary.json has it; ``settings`` and ``metrics`` are added."""
    settings = {
        **{"purifier": "DiffusionPurifier", "t_star": t_star, "num_steps": 10, "seed": 0},
        **{"sampler": "DDPMSampler", "forward_process": "stepwise", "images": 50},
        **{"attack": "PGD", "eps": 8 / 255, "uniform_eps": 8 / 255},
        "models": {"classifier": {"source": "c", "sha256": "a" * 64}},
    }
    metrics = {
        "uniform/compression_rate": mean(rate),
        "purified/clean_accuracy": share(0.9),
        "base/clean_accuracy": share(0.94),
        "fixed/robust_accuracy": share(accuracy(rate)),
    }
    settings |= changes.get("settings", {})
    metrics |= changes.get("metrics", {})
    for name in [name for name, entry in metrics.items() if entry is None]:
        del metrics[name]
    found = versions() | ({"lit-purify": version} if version else {})
    summary = {"status": status, "versions": found, "settings": settings, "metrics": metrics}
    write_summary(folder / "summary.json", summary)
    return folder


@pytest.fixture
def sweep(tmp_path):
    return [write_run(tmp_path / f"t{t}" / "version_0", t, rate) for t, rate in DEPTHS.items()]


def law_of(folder):
    return json.loads((folder / "law.json").read_text())


class TestTheLaw:
    def test_runs_on_a_curve_give_that_curve(self, sweep, tmp_path, capsys):
        law = law_of(report(sweep, tmp_path / "out"))
        assert law["measured"]["steepness"] == pytest.approx(K, rel=1e-6)
        assert law["measured"]["middle"] == pytest.approx(M, rel=1e-6)
        assert law["measured"]["at_zero"] == pytest.approx(accuracy(0), rel=1e-6)
        assert law["measured"]["points"] == 5
        assert law["paper"]["steepness"] == pytest.approx(17.453, abs=5e-4)
        assert law["notes"] == law["left_out"] == []
        printed = capsys.readouterr().out
        assert "measured: k = 15.000" in printed
        assert "R2 = 1.0000, 5 points" in printed
        assert "paper: k = 17.453" in printed

    def test_the_ceiling_is_fitted_on_request(self, tmp_path):
        runs = [
            write_run(
                tmp_path / str(t),
                metrics={
                    "uniform/compression_rate": mean(rate),
                    "fixed/robust_accuracy": share(0.7 * accuracy(rate)),
                },
            )
            for t, rate in DEPTHS.items()
        ]
        law = law_of(report(runs, tmp_path / "out", free_ceiling=True))
        assert law["measured"]["ceiling"] == pytest.approx(0.7, rel=1e-6)
        assert law["paper"]["ceiling"] == pytest.approx(1.0269, abs=1e-4)
        assert law_of(report(runs, tmp_path / "out"))["measured"]["ceiling_error"] is None

    def test_no_accuracy_is_told_where_the_curve_says_nothing(self, tmp_path, capsys):
        """Points that scatter far from rate 0: the interval there is as wide as the scale."""
        scattered = {20: (0.3, 0.3), 50: (0.33, 0.1), 100: (0.36, 0.25), 150: (0.39, 0.15)}
        runs = [
            write_run(tmp_path / str(t), t, rate, metrics={"fixed/robust_accuracy": share(right)})
            for t, (rate, right) in scattered.items()
        ]
        measured = law_of(report(runs, tmp_path / "out"))["measured"]
        assert measured["at_zero_high"] - measured["at_zero_low"] > 1
        (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("measured: ")]
        assert line.endswith("accuracy at 0: not told by these points")

    def test_weights_make_a_run_of_few_images_count_less(self, sweep, tmp_path):
        wrong = {"fixed/robust_accuracy": share(0.9, 10)}
        runs = [*sweep, write_run(tmp_path / "few", 70, 0.22, metrics=wrong)]
        plain = law_of(report(runs, tmp_path / "out"))["measured"]
        weighted = law_of(report(runs, tmp_path / "out", weighted=True))["measured"]
        assert weighted["weighted"]
        assert abs(plain["steepness"] - K) > 1
        assert weighted["steepness"] == pytest.approx(K, abs=0.01)

    def test_another_key_has_no_paper(self, sweep, tmp_path, capsys):
        for run, rate in zip(sweep, DEPTHS.values(), strict=True):
            write_run(run, rate=rate, metrics={"attack/compression_rate": mean(2 * rate)})
        law = law_of(report(sweep, tmp_path / "out", key="attack/compression_rate"))
        assert law["paper"] is None
        assert law["measured"]["steepness"] == pytest.approx(K / 2, rel=1e-6)
        assert "paper: k" not in capsys.readouterr().out

    def test_too_few_attacked_runs_are_drawn_without_a_curve(self, tmp_path, capsys):
        runs = [write_run(tmp_path / f"a{n}", rate=n / 10) for n in (1, 2)]
        runs += [write_run(tmp_path / "clean", metrics={"fixed/robust_accuracy": None})]
        any_iteration = {"fixed/robust_accuracy_any_iteration": share(0.1)}
        early = {"fixed/robust_accuracy": None} | any_iteration
        runs += [write_run(tmp_path / "early", metrics=early)]
        runs += [write_run(tmp_path / "no_rate", metrics={"uniform/compression_rate": None})]
        law = law_of(report(runs, tmp_path / "out"))
        assert law["measured"] is None
        notes = "\n".join(law["notes"])
        assert "needs 3 points or more, got 2" in notes
        assert "(it was not attacked under fixed noise): clean" in notes
        assert "(the attack stopped early, so" in notes
        assert "in the table only): no_rate" in notes
        assert capsys.readouterr().out.count("note: ") == 4
        assert (tmp_path / "out" / "law.png").stat().st_size > 1000

    def test_the_size_of_attacks_has_its_own_figure(self, sweep, tmp_path, capsys):
        out = tmp_path / "out"
        sized = {"magnitude/l2": mean(1.234), "magnitude/linf": mean(0.03125)}
        run = write_run(tmp_path / "sized", metrics=sized)
        report([*sweep, run], out)
        assert (out / "magnitude.png").stat().st_size > 1000
        printed = capsys.readouterr().out
        assert "1.23" in printed
        assert "0.0312" in printed
        report(sweep, out)
        assert not (out / "magnitude.png").exists()
        assert "attack's" not in capsys.readouterr().out


def any_iteration(value):
    """Metrics of a run whose attack stopped early."""
    return {
        "fixed/robust_accuracy": None,
        "fixed/robust_accuracy_any_iteration": share(value),
    }


class TestBudgets:
    """One law over eps x rate, and so one for every budget whose k and m are known."""

    @pytest.fixture
    def budgets(self, tmp_path):
        def law(budget):
            return share(1 / (1 + math.exp(5 * (budget - 0.8))))

        return [
            write_run(
                tmp_path / f"t{t}_e{eps}" / "lightning_logs" / "version_0",
                *(t, rate),
                settings={"eps": eps / 255},
                metrics={"fixed/robust_accuracy": law(eps * rate)},
            )
            for t, rate in DEPTHS.items()
            for eps in (2, 4)
        ]

    def test_a_law_for_each_and_one_over_their_product(self, budgets, tmp_path, capsys):
        law = law_of(report(budgets, tmp_path / "out"))
        assert law["measured"] is None
        found = {fit["eps"]: (fit["steepness"], fit["middle"]) for fit in law["per_eps"]}
        assert found == {"2/255": pytest.approx((10, 0.4)), "4/255": pytest.approx((20, 0.2))}
        together = law["eps_times_rate"]
        assert (together["steepness"], together["middle"]) == pytest.approx((5, 0.8))
        assert together["r_squared"] == pytest.approx(1)
        assert together["points"] == 10
        printed = capsys.readouterr().out
        assert "measured, eps 2/255: k = 10.000" in printed
        assert "eps x rate in 1/255: k = 5.000" in printed
        assert "no curve" not in printed

    def test_a_budget_of_too_few_runs_has_none(self, sweep, tmp_path):
        law = law_of(report([*sweep, write_run(tmp_path / "a", settings={"eps": 4 / 255})],
                            tmp_path / "out"))  # fmt: skip
        assert [fit["eps"] for fit in law["per_eps"]] == ["8/255"]
        assert law["eps_times_rate"]["points"] == 6
        assert any("runs of eps 4/255" in note for note in law["notes"])


class TestAccuracy:
    def test_early_stopped_runs_have_that_at_any_iteration(self, tmp_path, capsys):
        runs = [
            write_run(tmp_path / str(t), t, rate, metrics=any_iteration(accuracy(rate)))
            for t, rate in DEPTHS.items()
        ]
        law = law_of(report(runs, tmp_path / "out"))
        assert law["accuracy"] == "fixed/robust_accuracy_any_iteration"
        assert law["measured"]["steepness"] == pytest.approx(K, rel=1e-6)
        printed = capsys.readouterr().out
        assert "note: the attacks stopped early" in printed
        assert "any iteration" in printed
        assert "right at every iteration" in (tmp_path / "out" / "tables.md").read_text()

    def test_another_accuracy_is_named(self, sweep, tmp_path):
        for run, rate in zip(sweep, DEPTHS.values(), strict=True):
            write_run(run, rate=rate, metrics={"fresh/robust_accuracy": share(accuracy(rate / 2))})
        law = law_of(report(sweep, tmp_path / "out", accuracy="fresh/robust_accuracy"))
        assert law["measured"]["steepness"] == pytest.approx(K / 2, rel=1e-6)


class TestFiles:
    def test_the_same_records_give_the_same_bytes_wherever_they_lie(self, tmp_path, capsys):
        found = []
        for place in ("one", "two"):
            root = tmp_path / place
            for t, rate in DEPTHS.items():
                for seed in (0, 1):
                    protocols = {
                        **{"transfer/robust_accuracy": share(0.6 + seed / 10, 50)},
                        **{"blind/robust_accuracy": share(0.7, 50)},
                        **{"magnitude/l2": mean(1.2)},
                        **{f"base_curve/robust_accuracy_{r}": share(1 - r) for r in (0.0, 0.5)},
                    }
                    folder = root / f"t{t}_s{seed}" / "lightning_logs" / "version_0"
                    settings = {"seed": seed, "base_curve_eps": 8 / 255}
                    write_run(folder, t, rate, settings=settings, metrics=protocols)
            write_run(root / "t20_s0" / "lightning_logs" / "version_1", status="interrupted")
            out = report([root], tmp_path / f"{place}_out")
            found.append({file.name: file.read_bytes() for file in out.iterdir()})
        names = {"law", "magnitude", "base_curve", "depth", "protocols"}
        assert {name[:-4] for name in found[0] if name.endswith(".png")} == names
        one, two = found
        assert one == two
        assert str(tmp_path).encode() not in b"".join(one.values())
        assert capsys.readouterr().out.count("0.350") > 0

    def test_what_an_older_report_drew_goes(self, sweep, tmp_path):
        report(sweep, tmp_path / "out")
        report(sweep[:1], tmp_path / "out")
        assert not (tmp_path / "out" / "depth.png").exists()

    def test_a_purifier_without_a_sampler_has_its_name(self, tmp_path, capsys):
        settings = {"sampler": None, "purifier": "Blur", "forward_process": None}
        report([write_run(tmp_path / "blur", settings=settings)], tmp_path / "out")
        assert "Blur" in capsys.readouterr().out

    def test_what_is_more_than_a_single_chain_says_so(self, tmp_path, capsys):
        options = {"rounds": "36 x 4", "averaged": "images", "averaged_draws": 2}
        settings = {"purifier": "RepeatedPurifier", "purifier_options": options}
        report([write_run(tmp_path / "rounds", settings=settings)], tmp_path / "out")
        shown = capsys.readouterr().out
        assert "RepeatedPurifier" in shown
        assert "averaged" in shown
        report([write_run(tmp_path / "single")], tmp_path / "out")
        assert "Purifier" not in capsys.readouterr().out


class TestTheTable:
    def test_the_csv_has_every_digit(self, sweep, tmp_path):
        report(sweep, tmp_path / "out")
        rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "runs.csv").read_text())))
        assert [int(row["t_star"]) for row in rows] == list(DEPTHS)
        for row, run in zip(rows, sweep, strict=True):
            assert row["run"] == f"{run.parent.name}/version_0"
            assert row["method"] == "DDPM"
            entry = read_summary(run / "summary.json")["metrics"]["fixed/robust_accuracy"]
            for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high"), ("n", "_n")):
                assert float(row[f"fixed/robust_accuracy{suffix}"]) == entry[part]
            assert row["fresh/robust_accuracy"] == ""

    def test_no_digit_is_cut_off(self, sweep, tmp_path, capsys):
        sized = {"magnitude/l2": mean(1.25), "magnitude/linf": mean(0.03125)}
        more = {name: share(1.0) for name in ("transfer/robust_accuracy", "fresh/robust_accuracy")}
        long = tmp_path / "a_very_long_name_of_a_folder" / "version_0"
        run = write_run(long, metrics=sized | more)
        report([*sweep, run], tmp_path / "out")
        printed = capsys.readouterr().out
        assert "…" not in printed
        assert "1.12–1.38" in printed
        assert "100.0–100.0" in printed
        assert "stepwise" in printed

    @pytest.mark.parametrize(
        ("settings", "method"),
        [
            ({}, "DDPM"),
            ({"forward_process": "one_shot"}, "DDPM"),
            ({"forward_process": "none"}, "Reverse"),
            ({"sampler": "DDIMSampler"}, "DDIM"),
            ({"sampler": "DDIMSampler", "forward_process": "none"}, "Reverse, DDIM"),
            ({"sampler": None, "purifier": "Blur"}, "Blur"),
        ],
    )
    def test_methods_have_the_papers_names(self, tmp_path, settings, method):
        (run,), _ = read_runs([write_run(tmp_path, settings=settings)])
        assert run.method == method
        assert f",{method}," in runs_csv([run], "uniform/compression_rate").replace('"', "")


class TestWhatIsLeftOut:
    def test_a_line_for_every_folder(self, sweep, tmp_path, capsys):
        running = write_run(tmp_path / "running", status="interrupted")
        (tmp_path / "text").mkdir()
        (tmp_path / "text" / "summary.json").write_text("{")
        (tmp_path / "list").mkdir()
        (tmp_path / "list" / "summary.json").write_text("[]")
        write_run(tmp_path / "old")
        old = json.loads((tmp_path / "old" / "summary.json").read_text())
        old["metrics"] = {"accuracy": 0.3}
        (tmp_path / "old" / "summary.json").write_text(json.dumps(old))
        others = [running, *(tmp_path / name for name in ("none", "text", "list", "old"))]
        law = law_of(report([*sweep, *others, sweep[0]], tmp_path / "out"))
        assert law["runs"] == [f"{run.parent.name}/version_0" for run in sweep]
        words = [
            "go on with it by --resume running",
            "No such file",
            "not that of a run",
            "not that of a run",
            "laid out otherwise",
            "named twice",
        ]
        assert len(law["left_out"]) == len(words)
        for line, word, folder in zip(law["left_out"], words, [*others, sweep[0]], strict=True):
            assert word in line
            assert line.startswith(str(folder.relative_to(tmp_path)))
        assert capsys.readouterr().out.count("left out: ") == len(words)
        assert law["measured"]["points"] == 5

    def test_an_exported_copy_is_the_run_again(self, sweep, tmp_path, capsys):
        copied = tmp_path / "exported" / "t20"
        copied.mkdir(parents=True)
        (copied / "summary.json").write_bytes((sweep[0] / "summary.json").read_bytes())
        law = law_of(report([*sweep, copied], tmp_path / "out"))
        assert law["runs"] == [f"{run.parent.name}/version_0" for run in sweep]
        (line,) = law["left_out"]
        assert line.startswith("exported/t20: ")
        assert "the same as t20/version_0" in line

    @pytest.mark.parametrize(
        "changes",
        [
            {"settings": {"eps": [1, 2]}},
            {"settings": {"t_star": "deep"}},
            {"versions": 3},
            {"labels": []},
            {"flags": 3},
            {"class_names": 7},
        ],
        ids=str,
    )
    def test_a_summary_of_other_kinds(self, changes, tmp_path):
        run = write_run(tmp_path)
        summary = json.loads((run / "summary.json").read_text())
        write_summary(run / "summary.json", summary | changes)
        runs, (line,) = read_runs([run])
        assert not runs
        assert "laid out otherwise" in line


class TestDisagreements:
    def test_what_runs_should_share(self, tmp_path):
        other = {"eps": 4 / 255, "models": {"classifier": {"source": "c", "sha256": "b" * 64}}}
        folders = [
            *(write_run(tmp_path / f"same{n}", t_star=10 + n) for n in range(5)),
            write_run(tmp_path / "other", settings=other),
            write_run(tmp_path / "old", version="0.0.1"),
            write_run(tmp_path / "deep", t_star=900, settings={"num_steps": 3}),
        ]
        runs, _ = read_runs(folders)
        eps, classifier = disagreements(runs)[1:]
        assert "made by lit-purify 0.0.1" in disagreements(runs)[0]
        assert disagreements(runs)[0].endswith(": old")
        assert eps.endswith("same3, same4, old, deep; 4/255 in other")
        assert classifier.endswith("; bbbbbbbbbbbb in other")

    def test_a_budget_is_in_255ths_and_other_numbers_are_as_they_are(self, tmp_path):
        settings = (
            {"steps": 40, "eps": 8 / 255, "queries": 500},
            {"steps": 10, "eps": 4 / 255, "queries": 5000},
        )
        folders = [write_run(tmp_path / f"r{n}", settings=its) for n, its in enumerate(settings)]
        eps, steps, queries = disagreements(read_runs(folders)[0])
        assert eps.endswith("8/255 in r0; 4/255 in r1")
        assert "attack steps" in steps
        assert steps.endswith("40 in r0; 10 in r1")
        assert queries.endswith("500 in r0; 5000 in r1")

    @pytest.mark.parametrize(
        ("settings", "unlike"),
        [
            ({"attack": "BPDA", "uniform_eps": 16 / 255}, "attack, uniform_eps"),
            ({"models": {"classifier": {"source": "d", "sha256": None}}}, "classifier"),
            ({"seed": 1, "images": 20, "precision": "bf16-mixed"}, None),
            ({"models": {"denoiser": {"source": "d", "sha256": None}}}, None),
        ],
    )
    def test_no_curve_goes_through_unlike_runs(self, sweep, tmp_path, settings, unlike):
        run = write_run(tmp_path / "x", rate=0.22, settings=settings)
        law = law_of(report([*sweep, run], tmp_path / "out"))
        told = [note for note in law["notes"] if "no curve is fitted" in note]
        if unlike is None:
            assert law["measured"]["points"] == 6
            assert not told
        else:
            assert law["measured"] is None
            assert f"differ in {unlike};" in told[0]
        # One that is not fitted is in nobody's way.
        clean = write_run(run, settings=settings, metrics={"fixed/robust_accuracy": None})
        assert law_of(report([*sweep, clean], tmp_path / "out"))["measured"]["points"] == 5

    def test_threat_models_are_not_mixed(self, tmp_path):
        def run(name, rate, threat_model):
            settings = {"attack": "LowFrequency", "threat_model": threat_model}
            return write_run(tmp_path / name, rate=rate, settings=settings)

        alike = "l_inf, 8 x 8 lowest DCT frequencies"
        runs = [run(f"t{t}", rate, alike) for t, rate in DEPTHS.items()]
        assert law_of(report(runs, tmp_path / "out"))["measured"] is not None
        law = law_of(report([*runs, run("other", 0.22, alike.replace("8", "4"))], tmp_path / "out"))
        assert law["measured"] is None
        assert any("differ in threat_model;" in note for note in law["notes"])

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            ({"pgd": {"steps": 40}}, "rungs: pgd, square in a; pgd in b"),
            ({"pgd": {"steps": 9}, "square": {"queries": 5}}, "rungs.pgd.steps: 40 in a; 9 in b"),
        ],
        ids=["left out", "shorter"],
    )
    def test_ladders_differ_in_their_rungs(self, tmp_path, other, said):
        rungs = {"pgd": {"steps": 40}, "square": {"queries": 5}}
        runs = [
            write_run(tmp_path / name, settings={"attack": "Ladder", "rungs": each})
            for name, each in {"a": rungs, "b": other}.items()
        ]
        law = law_of(report(runs, tmp_path / "out"))
        assert any("differ in rungs" in note for note in law["notes"])
        assert f"the runs differ in {said}" in disagreements(read_runs(runs)[0])

    def test_a_budget_above_1_is_not_one_of_pixels(self, tmp_path):
        folders = [write_run(tmp_path / f"r{n}", settings={"eps": n}) for n in (2.0, 3.0)]
        (eps,) = disagreements(read_runs(folders)[0])
        assert "eps: 2 in r2.0; 3 in r3.0" in eps

    def test_another_budget_than_the_papers_is_said(self, sweep, tmp_path, capsys):
        report([*sweep, write_run(tmp_path / "a", settings={"eps": 4 / 255})], tmp_path / "out")
        assert (
            "the paper attacked with 8/255, and not with 4/255 as in a" in capsys.readouterr().out
        )

    def test_an_eps_that_was_not_used_does_not_count(self, tmp_path):
        clean = {"fixed/robust_accuracy": None}
        settings = {"eps": 4 / 255, "protocols": []}
        runs = [write_run(tmp_path / "a", metrics=clean, settings=settings)]
        law = law_of(report(runs, tmp_path / "out"))
        assert not [note for note in law["notes"] if "4/255" in note]

    def test_short_names(self, tmp_path):
        def names(*paths):
            folders = [write_run(tmp_path / path, 10 + n) for n, path in enumerate(paths)]
            return short_names(read_runs(folders)[0])

        assert names("a/logs/version_0", "b/logs/version_0") == ["a", "b"]
        assert names("x/version_0", "x/version_1") == ["version_0", "version_1"]
        assert names("x/version_0") == ["version_0"]
        assert names("y", "y/z") == ["y", "z"]


class TestCommand:
    def test_it_runs_and_ends_with_its_folder(self, sweep, tmp_path, capsys):
        out = tmp_path / "new" / "out"
        assert main(["report", *map(str, sweep), "--output", str(out)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(out)
        tables = {f"tables.{ending}" for ending in ("csv", "md", "tex")}
        files = {"runs.csv", "law.json", "law.png", "depth.png"} | tables
        assert {file.name for file in out.iterdir()} == files

    def test_options(self, sweep, tmp_path):
        options = ["--free_ceiling", "--weighted", "--key", "uniform/compression_rate"]
        assert main(["report", *map(str, sweep), "--output", str(tmp_path / "o"), *options]) == 0
        law = law_of(tmp_path / "o")
        assert law["measured"]["ceiling_error"] is not None
        assert law["measured"]["weighted"]

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            ([], ["required", "runs"]),
            (["nowhere"], ["none of the folders", "nowhere"]),
            (["nowhere", "--colour", "red"], ["--colour"]),
            (["{run}", "--key", "x/y"], ["x/y", "--key", "fixed/robust_accuracy"]),
            (["{run}", "--accuracy", "x/y"], ["x/y", "--accuracy", "fixed/robust_accuracy"]),
            (["{run}", "--output", "{run}/summary.json"], ["summary.json", "folder"]),
            (["{run}", "--html", "{run}"], ["--html", "run", "report.html"]),
            (["{run}", "--html", "{run}/summary.json/page.html"], ["summary.json", "--html"]),
            (["{run}", "--outpt", "there"], ["did you mean output"]),
            (["{run}", "--output", "s3://bucket/report"], ["s3://bucket/report", "--output"]),
        ],
    )
    def test_errors_are_one_line(self, args, words, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = write_run(tmp_path / "run")
        assert main(["report", *(word.format(run=run) for word in args)]) == 2
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert line.startswith("error: ")
        assert all(word in line for word in words)
        assert printed.out == ""  # before any work
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

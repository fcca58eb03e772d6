"""The records of real, small runs: against the summary, and across interruptions."""

import json
import math
import shutil
import time

import pytest
import tiny
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file
from tiny import Failing, IdentityPurifier, NoisyPurifier, evaluate

from lit_purify.attacks import PGD
from lit_purify.callbacks import AdversarialExamples, CompressionRate, Records, Summary
from lit_purify.data import CIFAR10DataModule
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

N = 7
PROTOCOLS = ("base", "fixed", "transfer", "fresh")
COLUMNS = {"index", "protocol", "seed", "label"}


class SlowAttack(PGD):
    """Takes 50 ms a batch."""

    def perturb(self, model, images, labels, indices, seed):
        time.sleep(0.05)
        return images


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))


@pytest.fixture(scope="module")
def run(npz):
    """A function that evaluates a defence into a folder and returns what was logged."""

    def run(
        folder, *, fails_at=None, seed=3, batch_size=3, resume=False, attack=None, purifier=None
    ):
        module = PurifiedClassifier(
            purifier or Failing(fails_at), tiny.classifier(), protocols=PROTOCOLS, seed=seed
        )
        data = CIFAR10DataModule(source=npz, batch_size=batch_size)
        callbacks = CompressionRate(), Records(resume=resume), Summary()
        metrics, _ = evaluate(module, data, *callbacks, attack=attack, folder=folder)
        return metrics

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """(folder, logged metrics) of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


@pytest.fixture(scope="module")
def broken(run, tmp_path_factory):
    """The folder of a run that failed in its last batch."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(folder, fails_at=6)
    return folder


@pytest.fixture
def stopped(broken, tmp_path):
    """A copy of it to go on with."""
    return shutil.copytree(broken, tmp_path / "stopped")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "records" / "rows.jsonl").open()]


def header_of(folder):
    return json.loads((folder / "records" / "header.json").read_text())


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def statistics(values):
    """What a report says of a column, by the textbook."""
    z = 1.959963984540054
    known = [value for value in values if value is not None]
    n = len(known)
    mean = math.fsum(known) / n if n else None
    if all(isinstance(value, bool) for value in values):
        centre, width = (
            mean + z**2 / (2 * n),
            z * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2)),
        )
        bounds = [(centre + sign * width) / (1 + z**2 / n) for sign in (-1, 1)]
        return {"value": mean, "low": bounds[0], "high": bounds[1], "n": n}
    found = {"value": mean, "low": None, "high": None, "std": None}
    if n > 1:
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
        half = z * std / math.sqrt(n)
        found = {"value": mean, "low": mean - half, "high": mean + half, "std": std}
    return {**found, "n": n, "missing": len(values) - n}


def assert_figures_follow_from_rows(folder, logged):
    """Every figure of the summary and of the log is what the rows say."""
    rows = rows_of(folder)
    summary = read_summary(folder / "summary.json")
    assert summary["status"] == "finished"
    assert set(summary["metrics"]) == set(logged)
    for name, figures in summary["metrics"].items():
        protocol, key = name.split("/")
        values = [row[key] for row in rows if row["protocol"] == protocol and key in row]
        expected = statistics(values)
        assert figures == pytest.approx(expected, rel=1e-12, abs=1e-12), name
        if expected["value"] is None:
            assert math.isnan(logged[name])
        else:
            assert logged[name] == pytest.approx(expected["value"], rel=1e-6), name


def assert_close(rows, expected):
    """The same rows but for the rounding of batches of another size."""
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            rounded = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            assert row[name] == rounded, (name, row)


class TestRows:
    def test_one_for_every_index_protocol_and_seed(self, whole):
        keys = [(row["index"], row["seed"], row["protocol"]) for row in rows_of(whole[0])]
        names = sorted([*PROTOCOLS, "purified", "uniform", "attack"])
        assert keys == [(index, 3, name) for index in range(N) for name in names]

    def test_columns(self, whole):
        rows = rows_of(whole[0])
        accuracy = {"robust_accuracy", "robust_prediction"}
        any_iteration = {"robust_accuracy_any_iteration"}
        clean = {"clean_accuracy", "clean_prediction"}
        expected = {
            "base": accuracy | any_iteration | clean,
            "fixed": accuracy | any_iteration,
            "transfer": accuracy,
            "fresh": accuracy,
            "purified": clean,
            "uniform": {"compression_rate"},
        }
        for row in rows:
            if row["protocol"] != "attack":
                assert set(row) == COLUMNS | expected[row["protocol"]]

    def test_predictions_and_labels_give_the_accuracies(self, whole):
        labels = tiny.images_and_labels(N)[1].tolist()
        for row in rows_of(whole[0]):
            assert row["label"] == labels[row["index"]]
            for kind in ("clean", "robust"):
                if f"{kind}_prediction" in row:
                    right = row[f"{kind}_prediction"] == row["label"]
                    assert row[f"{kind}_accuracy"] is right

    def test_a_part_of_a_figure_is_only_in_the_rows_it_applies_to(self, whole):
        rows = rows_of(whole[0])
        robust = {r["index"]: r["robust_accuracy"] for r in rows if r["protocol"] == "fixed"}
        assert set(robust.values()) == {True, False}
        for row in rows:
            if row["protocol"] == "attack":
                part = "robust" if robust[row["index"]] else "nonrobust"
                name = f"compression_rate_{part}"
                assert set(row) == COLUMNS | {"compression_rate", name}
                assert row[name] == row["compression_rate"]

    def test_every_figure_follows_from_them(self, whole):
        assert_figures_follow_from_rows(*whole)

    def test_tensors_are_the_adversarial_images(self, npz, tmp_path):
        module = PurifiedClassifier(NoisyPurifier(), tiny.classifier(), protocols=PROTOCOLS)
        data = CIFAR10DataModule(source=npz, batch_size=3, indices=[5, 2, 6, 0])
        _, seen = evaluate(module, data, Records(), folder=tmp_path)
        tensors = load_file(tmp_path / "records" / "tensors.safetensors")
        assert tensors.pop("index").tolist() == [0, 2, 5, 6]
        assert set(tensors) == {"base/adversarial", "fixed/adversarial", "fresh/adversarial"}
        for surface in ("base", "fixed", "fresh"):
            found = tensors[f"{surface}/adversarial"]
            assert torch.equal(found, seen.adversarial(surface)[[3, 1, 0, 2]])

    def test_the_header(self, whole):
        header = header_of(whole[0])
        assert header["status"] == "finished"
        assert header["samples"] == N
        settings = read_summary(whole[0] / "summary.json")["settings"]
        hardware = {"batch_size": 3, "device": "cpu", "processes": 1}
        assert header["identity"]["config"] is None
        assert {**header["identity"]["settings"], **hardware} == settings
        (sitting,) = header["sittings"]
        assert hardware.items() <= sitting.items()
        assert sitting["busy_seconds"][0] > 0

    def test_the_attack_is_part_of_the_busy_time(self, run, tmp_path):
        run(tmp_path, attack=SlowAttack())
        (sitting,) = header_of(tmp_path)["sittings"]
        assert sitting["busy_seconds"][0] >= 3 * 3 * 0.05  # three batches on three surfaces

    def test_nothing_else_is_left(self, whole):
        names = {path.name for path in (whole[0] / "records").iterdir()}
        assert names == {"header.json", "rows.jsonl", "tensors.safetensors"}

    def test_what_is_not_finite_is_null(self, run, tmp_path):
        logged = run(tmp_path, attack=PGD(eps=0, steps=1), purifier=IdentityPurifier())
        rates = [row for row in rows_of(tmp_path) if row["protocol"] == "attack"]
        assert [row["compression_rate"] for row in rates] == [None] * N
        assert "NaN" not in (tmp_path / "records" / "rows.jsonl").read_text()
        assert read_summary(tmp_path / "summary.json")["metrics"]["attack/compression_rate"] == {
            **dict.fromkeys(["value", "low", "high", "std"]),
            **{"n": 0, "missing": N},
        }
        assert math.isnan(logged["attack/compression_rate"])

    def test_batches_do_not_matter(self, whole, run, tmp_path):
        logged = run(tmp_path, batch_size=7)
        assert logged == pytest.approx(whole[1], rel=1e-5)
        assert_close(rows_of(tmp_path), rows_of(whole[0]))


class TestResumed:
    def assert_same(self, folder, logged, whole):
        for name in ("rows.jsonl", "tensors.safetensors"):
            path, other = folder / "records" / name, whole[0] / "records" / name
            assert path.read_bytes() == other.read_bytes(), name
        assert_figures_follow_from_rows(folder, logged or whole[1])
        assert header_of(folder)["run"] == header_of(whole[0])["run"]
        assert not list((folder / "records").glob("rank_*"))

    def test_a_failed_run_has_what_it_did(self, broken):
        header, *lines = (broken / "records" / "rank_0.jsonl").read_text().splitlines()
        assert json.loads(header)["run"] == header_of(broken)["run"]
        done = [sorted({row["index"] for row in json.loads(line)["rows"]}) for line in lines]
        assert done == [[0, 1, 2], [3, 4, 5]]
        assert header_of(broken)["status"] == "failed"
        assert not (broken / "records" / "rows.jsonl").exists()

    def test_it_becomes_the_undisturbed_one(self, stopped, whole, run, capsys):
        logged = run(stopped, resume=True)
        self.assert_same(stopped, logged, whole)
        assert logged == pytest.approx(whole[1], rel=1e-6, nan_ok=True)
        assert "resumed: 6 of 7 images are recorded" in capsys.readouterr().out
        first, second = header_of(stopped)["sittings"]
        assert "busy_seconds" in second
        assert first["versions"] == second["versions"]

    @pytest.mark.parametrize("share", [0.0, 0.02, 0.4, 0.8, 0.999])
    def test_after_a_kill_at_any_byte(self, stopped, whole, run, share):
        journal = stopped / "records" / "rank_0.jsonl"
        size = journal.stat().st_size
        journal.write_bytes(journal.read_bytes()[: int(share * size)])
        self.assert_same(stopped, run(stopped, resume=True), whole)

    def test_after_it_failed_again_and_again(self, tmp_path, whole, run):
        for at in (2, 2, 4, 6):
            with pytest.raises(RuntimeError, match="this purifier fails"):
                run(tmp_path, fails_at=at, resume=True)
        self.assert_same(tmp_path, run(tmp_path, resume=True), whole)
        assert len(header_of(tmp_path)["sittings"]) == 5

    def test_a_finished_run_is_left_as_it_is(self, whole, run, tmp_path):
        folder = shutil.copytree(whole[0], tmp_path / "copy")
        assert run(folder, resume=True, fails_at=0) == {}  # nothing was evaluated, nor logged
        self.assert_same(folder, None, whole)

    def test_where_there_is_no_run_one_starts(self, tmp_path, whole, run):
        self.assert_same(tmp_path, run(tmp_path, resume=True), whole)

    def test_with_another_batch_size(self, stopped, whole, run):
        logged = run(stopped, resume=True, batch_size=2)
        self.assert_same(stopped, logged, whole)  # the one sample left is a batch in both
        assert [s["batch_size"] for s in header_of(stopped)["sittings"]] == [3, 2]

    def test_with_another_batch_size_from_the_start(self, stopped, whole, run):
        journal = stopped / "records" / "rank_0.jsonl"
        header, first, _ = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(header + first)
        logged = run(stopped, resume=True, batch_size=1)
        assert_figures_follow_from_rows(stopped, logged)
        assert logged == pytest.approx(whole[1], rel=1e-5, nan_ok=True)
        assert_close(rows_of(stopped), rows_of(whole[0]))

    def test_the_data_module_serves_all_images_to_the_next_run(self, stopped, npz, whole, tmp_path):
        data = CIFAR10DataModule(source=npz, batch_size=3)
        for folder, resume in ((stopped, True), (tmp_path / "new", False)):
            module = PurifiedClassifier(Failing(), tiny.classifier(), protocols=PROTOCOLS, seed=3)
            callbacks = CompressionRate(), Records(resume=resume), Summary()
            logged, _ = evaluate(module, data, *callbacks, folder=folder)
            self.assert_same(folder, logged, whole)


class TestRefused:
    def test_a_second_run_in_the_same_folder(self, whole, broken, run):
        for folder in (whole[0], broken):
            before = content(folder)
            with pytest.raises(InputError, match="holds a run already; go on with it by --resume"):
                run(folder)
            assert content(folder) == before

    def test_another_seed(self, stopped, run, whole):
        before = content(stopped)
        with pytest.raises(InputError, match=r"not that of the run .* seed was 3 and now is 4"):
            run(stopped, resume=True, seed=4)
        assert content(stopped) == before
        assert run(stopped, resume=True) == pytest.approx(whole[1], rel=1e-6, nan_ok=True)

    def test_another_attack_or_defence(self, stopped, run):
        before = content(stopped)
        with pytest.raises(InputError, match="steps was 3 and now is 2"):
            run(stopped, resume=True, attack=PGD(eps="1/255", steps=2, rel_stepsize=0.5))
        with pytest.raises(
            InputError, match='purifier was "Failing" and now is "IdentityPurifier"'
        ):
            run(stopped, resume=True, purifier=IdentityPurifier())
        assert content(stopped) == before

    def test_damaged_records(self, stopped, run, whole):
        journal = stopped / "records" / "rank_0.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(lines[0] + b"{\n" + lines[2])
        before = content(stopped)
        with pytest.raises(InputError, match=r"line 2 of .*rank_0.jsonl is damaged; delete that"):
            run(stopped, resume=True)
        assert content(stopped) == before
        journal.write_bytes(lines[0] + lines[2])  # what the message says
        assert run(stopped, resume=True) == pytest.approx(whole[1], rel=1e-6, nan_ok=True)

    def test_records_that_contradict_each_other(self, stopped, run, whole):
        """What is found after the folder was taken lets it go again."""
        journal = stopped / "records" / "rank_0.jsonl"
        sound = journal.read_bytes()
        last = sound.splitlines(keepends=True)[-1]
        false = last.replace(b'"label":', b'"label":1')
        journal.write_bytes(sound + false)
        before = content(stopped)
        with pytest.raises(InputError, match="second row for index 3") as caught:
            run(stopped, resume=True)
        assert not isinstance(caught.value.__context__, AssertionError)
        assert content(stopped) == before
        journal.write_bytes(sound)
        assert run(stopped, resume=True) == pytest.approx(whole[1], rel=1e-6, nan_ok=True)

    def test_a_damaged_header(self, stopped, run):
        (stopped / "records" / "header.json").write_text("{")
        before = content(stopped)
        with pytest.raises(InputError, match=r"header\.json is damaged"):
            run(stopped, resume=True)
        assert content(stopped) == before

    @pytest.mark.parametrize("order", ["summary", "records, measurement", "summary, records"])
    def test_callbacks_in_an_order_that_loses_figures(self, npz, tmp_path, order):
        callbacks = {
            "summary": [Summary()],
            "records, measurement": [Records(), CompressionRate(), Summary()],
            "summary, records": [Summary(), Records()],
        }[order]
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
        with pytest.raises(InputError, match=r"put .*Records"):
            evaluate(module, CIFAR10DataModule(source=npz), *callbacks, folder=tmp_path)
        for path in tmp_path.rglob("summary.json"):
            assert read_summary(path)["status"] == "failed"


def trainer(folder, *callbacks, **options):
    return Trainer(
        **{"accelerator": "cpu", "inference_mode": False, "logger": False, "barebones": False},
        **{"enable_progress_bar": False, "enable_model_summary": False},
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[AdversarialExamples(PGD(steps=1)), *callbacks],
        **options,
    )


@pytest.mark.parametrize("limit", [1, 2, 0.5])
def test_a_run_of_some_batches_is_refused(npz, tmp_path, limit):
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
    some = trainer(tmp_path, Records(), limit_test_batches=limit)
    with pytest.raises(InputError, match="limit_test_batches leaves out samples"):
        some.test(module, CIFAR10DataModule(source=npz, batch_size=2), verbose=False)
    assert content(tmp_path) == {}


def test_a_smoke_test_leaves_no_trace(npz, tmp_path):
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
    smoke = trainer(tmp_path, Records(), Summary(), fast_dev_run=True)
    smoke.test(module, CIFAR10DataModule(source=npz, batch_size=2), verbose=False)
    assert content(tmp_path) == {}


def test_a_module_is_tested_again_after_it_failed(npz, whole, tmp_path):
    """And the callbacks with it: nothing of the first run is in the second."""
    module = PurifiedClassifier(Failing(4), tiny.classifier(), protocols=PROTOCOLS, seed=3)
    data = CIFAR10DataModule(source=npz, batch_size=3)
    callbacks = CompressionRate(), Records(), Summary()
    with pytest.raises(RuntimeError, match="this purifier fails"):
        evaluate(module, data, *callbacks, folder=tmp_path / "first")
    failed = content(tmp_path / "first")
    logged, _ = evaluate(module, data, *callbacks, folder=tmp_path / "second")
    assert content(tmp_path / "first") == failed
    assert logged == whole[1]
    TestResumed().assert_same(tmp_path / "second", logged, whole)


def test_a_trainer_that_goes_on_after_a_failure_does_not_finish_the_run(npz, tmp_path):
    purifier = Failing(4)
    module = PurifiedClassifier(purifier, tiny.classifier(), protocols=("fixed",))
    data = CIFAR10DataModule(source=npz, batch_size=3)
    again = trainer(tmp_path, Records(), Summary())
    with pytest.raises(RuntimeError, match="this purifier fails"):
        again.test(module, data, verbose=False)
    failed = content(tmp_path)
    data.setup("test")
    again.predict(module, data.test_dataloader(), return_predictions=False)
    assert content(tmp_path) == failed
    assert read_summary(tmp_path / "summary.json")["status"] == "failed"

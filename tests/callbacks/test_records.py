"""The records of real, small runs: against the summary, and across interruptions."""

import math
import shutil
from types import SimpleNamespace

import pytest
import tiny
import torch
from run_files import RunFiles
from safetensors.torch import load_file, safe_open, save_file
from tiny import Failing, IdentityPurifier, NoisyPurifier, evaluate

from lit_purify.attacks import PGD
from lit_purify.callbacks import AdversarialExamples, CompressionRate, Records, Summary, records
from lit_purify.data import CIFAR10DataModule
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

N = 7
PROTOCOLS = ("base", "fixed", "transfer", "fresh")
FIRST, SECOND = "batch_00000000.safetensors", "batch_00000003.safetensors"


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
    """(files, logged metrics) of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    logged = run(folder)
    return RunFiles(folder), logged


@pytest.fixture(scope="module")
def broken(run, tmp_path_factory):
    """A run that failed in its last batch."""
    folder = tmp_path_factory.mktemp("broken")
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(folder, fails_at=6)
    return RunFiles(folder)


@pytest.fixture
def stopped(broken, tmp_path):
    """A copy of it to go on with."""
    return RunFiles(shutil.copytree(broken.folder, tmp_path / "stopped"))


def assert_figures_follow_from_rows(files, logged):
    """Every figure of the summary and of the log is the mean of what the rows say."""
    rows, summary = files.rows, files.summary
    assert summary["status"] == "finished"
    assert set(summary["metrics"]) == set(logged)
    for name, figures in summary["metrics"].items():
        values = [row[name] for row in rows if name in row]
        known = [value for value in values if value is not None]
        assert figures["value"] == pytest.approx(math.fsum(known) / len(known), rel=1e-12), name
        assert figures["n"] == len(known)
        assert figures.get("missing", 0) == len(values) - len(known)
        assert logged[name] == pytest.approx(figures["value"], rel=1e-6), name


def assert_close(files, expected):
    """The same rows but for the rounding of batches of another size."""
    for row, other in zip(files.rows, expected.rows, strict=True):
        assert tiny.same_row(row, other, rel=1e-5), (row, other)


class TestRows:
    def test_one_per_image_with_its_columns(self, whole):
        rows = whole[0].rows
        assert [row["index"] for row in rows] == list(range(N))
        clean = {f"{name}/clean" for name in ("base", "purified")}
        kinds = clean | {f"{name}/robust" for name in PROTOCOLS}
        judged = ("accuracy", "prediction", "nonfinite")
        names = {f"{kind}_{what}" for kind in kinds for what in judged}
        names |= {f"{name}/robust_accuracy_any_iteration" for name in ("base", "fixed")}
        followed = [name for name in PROTOCOLS if name != "transfer"]
        names |= {f"{name}/{what}_gradient" for name in followed for what in ("zero", "nonfinite")}
        names |= {f"{name}/compression_rate" for name in ("uniform", "attack")}
        for row in rows:
            part = "robust" if row["fixed/robust_accuracy"] else "nonrobust"
            assert set(row) == {"index", "label", f"attack/compression_rate_{part}", *names}
            assert row[f"attack/compression_rate_{part}"] == row["attack/compression_rate"]
            for kind in kinds:
                right = row[f"{kind}_prediction"] == row["label"]
                assert row[f"{kind}_accuracy"] is right
        assert {row["fixed/robust_accuracy"] for row in rows} == {True, False}

    def test_labels_are_those_of_the_data(self, whole):
        labels = tiny.images_and_labels(N)[1].tolist()
        assert [row["label"] for row in whole[0].rows] == labels

    def test_every_figure_follows_from_them(self, whole):
        assert_figures_follow_from_rows(*whole)

    def test_adversarial_images_are_among_the_tensors(self, npz, tmp_path):
        module = PurifiedClassifier(NoisyPurifier(), tiny.classifier(), protocols=PROTOCOLS)
        data = CIFAR10DataModule(source=npz, batch_size=3, indices=[5, 2, 6, 0])
        _, seen = evaluate(module, data, Records(), folder=tmp_path)
        tensors = RunFiles(tmp_path).tensors
        assert tensors["index"].tolist() == [0, 2, 5, 6]
        images = {name for name, values in tensors.items() if values.ndim > 1}
        assert images == {"base/adversarial", "fixed/adversarial", "fresh/adversarial"}
        for surface in ("base", "fixed", "fresh"):
            found = tensors[f"{surface}/adversarial"]
            assert torch.equal(found, seen.adversarial(surface)[[3, 1, 0, 2]])

    def test_the_header(self, whole):
        header = whole[0].header
        assert (header["status"], header["samples"]) == ("finished", N)
        hardware = {"batch_size": 3, "device": "cpu", "processes": 1}
        assert header["identity"]["config"] is None
        settings = {**header["identity"]["settings"], **hardware}
        assert settings == whole[0].summary["settings"]
        (session,) = header["sessions"]
        assert hardware.items() <= session.items()

    def test_the_attack_is_part_of_the_busy_time(self, run, tmp_path, monkeypatch):
        now = 0.0

        class TenSeconds(PGD):
            def perturb(self, model, images, labels, indices, seed):
                nonlocal now
                now += 10
                return images

        monkeypatch.setattr(records, "time", SimpleNamespace(monotonic=lambda: now))
        run(tmp_path, attack=TenSeconds())
        (session,) = RunFiles(tmp_path).header["sessions"]
        assert session["busy_seconds"] == [3 * 3 * 10]  # three batches on three surfaces

    def test_nothing_else_is_left(self, whole):
        names = {path.name for path in whole[0].records.iterdir()}
        assert names == {"header.json", "rows.jsonl", "tensors.safetensors"}

    def test_what_is_not_finite_is_null(self, run, tmp_path):
        logged = run(tmp_path, attack=PGD(eps=0, steps=1), purifier=IdentityPurifier())
        files = RunFiles(tmp_path)
        assert [row["attack/compression_rate"] for row in files.rows] == [None] * N
        assert b"NaN" not in files.merged["rows.jsonl"]
        assert files.summary["metrics"]["attack/compression_rate"] == {
            **dict.fromkeys(["value", "low", "high", "std"]),
            **{"n": 0, "missing": N},
        }
        assert math.isnan(logged["attack/compression_rate"])

    def test_batches_do_not_matter(self, whole, run, tmp_path):
        logged = run(tmp_path, batch_size=7)
        assert logged == pytest.approx(whole[1], rel=1e-5)
        assert_close(RunFiles(tmp_path), whole[0])

    def test_a_measurement_may_stand_behind_them(self, whole, npz, tmp_path):
        module = PurifiedClassifier(Failing(), tiny.classifier(), protocols=PROTOCOLS, seed=3)
        data = CIFAR10DataModule(source=npz, batch_size=3)
        evaluate(module, data, Records(), CompressionRate(), Summary(), folder=tmp_path)
        assert RunFiles(tmp_path).merged == whole[0].merged


def assert_same(files, logged, whole):
    assert files.merged == whole[0].merged
    assert_figures_follow_from_rows(files, logged or whole[1])
    assert files.header["run"] == whole[0].header["run"]
    assert files.batches == []


class TestResumed:
    def test_a_failed_run_has_what_it_did(self, broken):
        assert broken.batches == [0, 3]
        assert broken.header["status"] == "failed"
        with safe_open(broken.records / SECOND, "pt") as file:
            assert broken.header["run"] in file.metadata()["header"]
            assert file.get_tensor("index").tolist() == [3, 4, 5]
        assert not (broken.records / "rows.jsonl").exists()

    def test_it_becomes_the_undisturbed_one(self, stopped, whole, run, capsys):
        logged = run(stopped.folder, resume=True)
        assert_same(stopped, logged, whole)
        assert logged == pytest.approx(whole[1], rel=1e-6, nan_ok=True)
        assert "resumed: 6 of 7 images are recorded" in capsys.readouterr().out
        first, second = stopped.header["sessions"]
        assert "busy_seconds" in second
        assert first["versions"] == second["versions"]

    @pytest.mark.parametrize("lost", [[FIRST], [SECOND], [FIRST, SECOND]])
    def test_after_a_kill_before_a_batch_was_whole(self, stopped, whole, run, lost):
        for name in lost:
            path = stopped.records / name
            path.with_name(f".{name}.17.tmp").write_bytes(path.read_bytes()[:-1])
            path.unlink()
        assert_same(stopped, run(stopped.folder, resume=True), whole)

    def test_after_it_failed_again_and_again(self, tmp_path, whole, run):
        for at in (2, 2, 4, 6):
            with pytest.raises(RuntimeError, match="this purifier fails"):
                run(tmp_path, fails_at=at, resume=True)  # where there is no run one starts
        assert_same(RunFiles(tmp_path), run(tmp_path, resume=True), whole)
        assert len(RunFiles(tmp_path).header["sessions"]) == 5

    def test_a_finished_run_is_left_as_it_is(self, whole, run, tmp_path):
        folder = shutil.copytree(whole[0].folder, tmp_path / "copy")
        assert run(folder, resume=True, fails_at=0) == {}  # nothing was evaluated, nor logged
        assert_same(RunFiles(folder), None, whole)

    def test_with_another_batch_size(self, stopped, whole, run):
        (stopped.records / SECOND).unlink()
        logged = run(stopped.folder, resume=True, batch_size=1)
        assert_figures_follow_from_rows(stopped, logged)
        assert logged == pytest.approx(whole[1], rel=1e-5, nan_ok=True)
        assert_close(stopped, whole[0])
        assert [session["batch_size"] for session in stopped.header["sessions"]] == [3, 1]

    def test_the_data_module_serves_all_images_to_the_next_run(self, stopped, npz, whole, tmp_path):
        data = CIFAR10DataModule(source=npz, batch_size=3)
        for folder, resume in ((stopped.folder, True), (tmp_path / "new", False)):
            module = PurifiedClassifier(Failing(), tiny.classifier(), protocols=PROTOCOLS, seed=3)
            callbacks = CompressionRate(), Records(resume=resume), Summary()
            logged, _ = evaluate(module, data, *callbacks, folder=folder)
            assert_same(RunFiles(folder), logged, whole)


class TestRefused:
    def test_a_second_run_in_the_same_folder(self, whole, broken, run):
        for files in (whole[0], broken):
            before = files.everything
            with pytest.raises(InputError, match="--resume"):
                run(files.folder)
            assert files.everything == before

    @pytest.mark.parametrize(
        ("change", "keyword"),
        [
            ({"seed": 4}, "seed was 3 and now is 4"),
            ({"attack": PGD(eps="1/255", steps=2, rel_stepsize=0.5)}, "steps was 3 and now is 2"),
            ({"purifier": IdentityPurifier()}, "purifier"),
        ],
    )
    def test_another_configuration(self, stopped, run, whole, change, keyword):
        before = stopped.everything
        with pytest.raises(InputError, match=keyword):
            run(stopped.folder, resume=True, **change)
        assert stopped.everything == before
        assert not [*stopped.records.glob(".rank*")]  # the folder was let go

    def test_damaged_records(self, stopped, run, whole):
        path = stopped.records / SECOND
        path.write_bytes(path.read_bytes()[:-1])
        before = stopped.everything
        with pytest.raises(InputError, match=f"{SECOND} is damaged .*delete"):
            run(stopped.folder, resume=True)
        assert stopped.everything == before
        path.unlink()  # what the message says
        assert_same(stopped, run(stopped.folder, resume=True), whole)

    def test_records_that_contradict_each_other(self, stopped, run, whole):
        """They are found when all are put together; nothing is lost."""
        sound, false = stopped.records / SECOND, stopped.records / "batch_00000099.safetensors"
        with safe_open(sound, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(sound)
        save_file({**tensors, "label": tensors["label"] + 1}, false, metadata)
        with pytest.raises(InputError, match=r"index 3 .*label"):
            run(stopped.folder, resume=True)
        assert stopped.batches == [0, 3, 6, 99]
        assert stopped.header["status"] == stopped.summary["status"] == "failed"
        false.unlink()  # what the message says
        assert_same(stopped, run(stopped.folder, resume=True), whole)

    def test_a_damaged_header(self, stopped, run):
        (stopped.records / "header.json").write_text("{")
        before = stopped.everything
        with pytest.raises(InputError, match=r"header\.json is damaged"):
            run(stopped.folder, resume=True)
        assert stopped.everything == before

    @pytest.mark.parametrize("callbacks", [[Summary()], [Summary(), Records()]])
    def test_a_summary_without_records_before_it(self, npz, tmp_path, callbacks):
        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
        with pytest.raises(InputError, match="Records"):
            evaluate(module, CIFAR10DataModule(source=npz), *callbacks, folder=tmp_path)
        assert not [*tmp_path.rglob("summary.json")]


def trainer(folder, *callbacks, **options):
    return tiny.trainer(folder, AdversarialExamples(PGD(steps=1)), *callbacks, **options)


@pytest.mark.parametrize("limit", [1, 0.5])
def test_a_run_of_some_batches_is_refused(npz, tmp_path, limit):
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
    some = trainer(tmp_path, Records(), limit_test_batches=limit)
    with pytest.raises(InputError, match="limit_test_batches"):
        some.test(module, CIFAR10DataModule(source=npz, batch_size=2), verbose=False)
    assert not [*tmp_path.iterdir()]


def test_a_module_is_tested_again_after_it_failed(npz, whole, tmp_path):
    """And the callbacks with it: nothing of the first run is in the second."""
    module = PurifiedClassifier(Failing(4), tiny.classifier(), protocols=PROTOCOLS, seed=3)
    data = CIFAR10DataModule(source=npz, batch_size=3)
    callbacks = CompressionRate(), Records(), Summary()
    first, second = RunFiles(tmp_path / "first"), RunFiles(tmp_path / "second")
    with pytest.raises(RuntimeError, match="this purifier fails"):
        evaluate(module, data, *callbacks, folder=first.folder)
    failed = first.everything
    logged, _ = evaluate(module, data, *callbacks, folder=second.folder)
    assert first.everything == failed
    assert logged == whole[1]
    assert_same(second, logged, whole)


def test_a_trainer_that_goes_on_after_a_failure_does_not_finish_the_run(npz, tmp_path):
    module = PurifiedClassifier(Failing(4), tiny.classifier(), protocols=("fixed",))
    data = CIFAR10DataModule(source=npz, batch_size=3)
    again = trainer(tmp_path, Records(), Summary())
    with pytest.raises(RuntimeError, match="this purifier fails"):
        again.test(module, data, verbose=False)
    files = RunFiles(tmp_path)
    failed = files.everything
    data.setup("test")
    again.predict(module, data.test_dataloader(), return_predictions=False)
    assert files.everything == failed
    assert files.summary["status"] == "failed"

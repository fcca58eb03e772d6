"""What TensorBoard shows, beside the records: while a run goes on, at its end, after a stop."""

import pytest
import tiny
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from run_files import RunFiles
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lit_purify.attacks import PGD
from lit_purify.callbacks import (
    AdversarialExamples,
    AttackCurves,
    CompressionRate,
    Dashboard,
    DistanceTrajectories,
    Records,
)
from lit_purify.cli import main
from lit_purify.data import CIFAR10DataModule
from lit_purify.functional import wilson_interval
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

N, STEPS = 7, 3


class Look(Callback):
    """Reads the curves after every batch, as a user would."""

    def __init__(self):
        self.seen = []

    def on_test_batch_end(self, trainer, *_, **__):
        self.seen.append(RunFiles(trainer.logger.log_dir).curves)


def run(folder, npz, *, at=None, resume=False):
    """A run of three batches, and what it showed after each of them."""
    module = PurifiedClassifier(
        tiny.Failing(at), tiny.classifier(), protocols=("base", "fixed", "transfer")
    )
    look = Look()
    callbacks = (
        AdversarialExamples(PGD(eps="2/255", steps=STEPS, rel_stepsize=0.3)),
        AttackCurves(),
        CompressionRate(),
        DistanceTrajectories(levels=["8/255"]),
        Records(resume=resume),
        Dashboard(),
        look,
    )
    logger = TensorBoardLogger(folder, "logs", "version_0")
    trainer = tiny.trainer(folder, *callbacks, logger=logger)
    trainer.test(module, CIFAR10DataModule(source=npz, batch_size=3), verbose=False)
    return RunFiles(folder / "logs" / "version_0"), look.seen


def curve(curves, name):
    """Its values by step, every step once and in order."""
    steps = [step for step, _ in curves[name]]
    assert steps == sorted(set(steps)), name
    return dict(curves[name])


def by_step(values, first=1):
    return pytest.approx(dict(enumerate(values, first)), rel=1e-5)


@pytest.fixture(scope="module")
def undisturbed(npz, tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), npz)


@pytest.fixture(scope="module")
def files(undisturbed):
    return undisturbed[0]


@pytest.fixture(scope="module")
def curves(files):
    return files.curves


class TestAtTheEnd:
    def test_a_metric_is_the_mean_of_the_first_images(self, files, curves):
        rows = files.rows
        for name in ("base/clean_accuracy", "fixed/robust_accuracy", "uniform/compression_rate"):
            column = [row[name] for row in rows]
            means = [sum(column[:n]) / n for n in range(1, N + 1)]
            assert curve(curves, name) == by_step(means)

    def test_what_is_noted_and_zero_is_left_out(self, curves):
        assert not [name for name in curves if "nonfinite" in name or "hp_metric" in name]

    @pytest.mark.parametrize("surface", ["base", "fixed"])
    def test_the_attack_by_iteration(self, files, curves, surface):
        tensors = files.tensors
        right = tensors[f"{surface}/attack_correct"].sum(0).tolist()
        last = sum(row[f"{surface}/robust_accuracy"] for row in files.rows)
        counts = [*right, last]
        name = f"attack/{surface}/robust_accuracy"
        assert curve(curves, name) == by_step(n / N for n in counts)
        for place, end in enumerate(("low", "high")):
            ends = [wilson_interval(count, N)[place] for count in counts]
            assert curve(curves, f"interval/{name}/{end}") == by_step(ends)
        for what in ("loss", "gradient_norm"):
            means = tensors[f"{surface}/attack_{what}"].double().mean(0).tolist()
            assert curve(curves, f"attack/{surface}/{what}") == by_step(means)

    def test_distances_along_the_chain(self, files, curves):
        for name, column in (("attack", "distance"), ("uniform_8", "distance_uniform_8")):
            means = files.tensors[f"{column}/trajectory"].double().mean(0)
            for norm, values in zip(("l2", "linf"), means.tolist(), strict=True):
                assert curve(curves, f"trajectory/{norm}/{name}") == by_step(values, 0)

    def test_histograms_are_of_the_images(self, files):
        events = EventAccumulator(str(files.folder))
        events.Reload()
        for name in ("uniform/compression_rate", "attack/compression_rate"):
            (event,) = events.Histograms(f"per_image/{name}")
            column = [row[name] for row in files.rows]
            assert event.histogram_value.num == N
            assert event.histogram_value.sum == pytest.approx(sum(column))
        assert {"attack_curves", "distances"} <= set(events.Tags()["images"])

    def test_settings_stand_beside_the_main_metrics(self, files, curves):
        events = EventAccumulator(str(files.folder))
        events.Reload()
        told = [
            HParamsPluginData.FromString(content)
            for content in events.PluginTagToContent("hparams").values()
        ]
        (experiment,) = (each.experiment for each in told if each.HasField("experiment"))
        (start,) = (each.session_start_info for each in told if each.HasField("session_start_info"))
        shown = {info.name.tag for info in experiment.metric_infos}
        assert {"base/robust_accuracy", "fixed/robust_accuracy"} <= shown
        assert set(start.hparams) <= {info.name for info in experiment.hparam_infos}
        assert start.hparams["attack"].string_value == "PGD"
        assert start.hparams["eps (1/255)"].number_value == 2
        assert start.hparams["steps (attack)"].number_value == STEPS
        assert start.hparams["purifier"].string_value == "Failing"
        assert start.hparams["test protocols"].string_value == "base, fixed, transfer"

    def test_charts_name_curves_that_are_there(self, files, curves):
        events = EventAccumulator(str(files.folder))
        events.Reload()
        (event,) = events.Tensors("custom_scalars__config__")
        layout = Layout.FromString(event.tensor_proto.string_val[0])
        lines = [tag for part in layout.category for c in part.chart for tag in c.multiline.tag]
        bands = [s for part in layout.category for c in part.chart for s in c.margin.series]
        assert {"attack/base/loss", "trajectory/linf/uniform_8"} <= set(lines)
        assert "attack/fixed/robust_accuracy" in {band.value for band in bands}
        named = {*lines, *(tag for band in bands for tag in (band.value, band.lower, band.upper))}
        assert named <= curves.keys()


def test_while_the_run_goes_on_it_shows_the_images_so_far(undisturbed):
    files, seen = undisturbed
    right = files.tensors["fixed/attack_correct"]
    last = torch.tensor([row["fixed/robust_accuracy"] for row in files.rows])
    for images, curves in zip((3, 6, 7), seen, strict=True):
        means = torch.cat([right, last[:, None]], 1)[:images].double().mean(0).tolist()
        assert curve(curves, "attack/fixed/robust_accuracy") == by_step(means)
        done = last[:images].double().mean().item()
        assert curves["fixed/robust_accuracy"][-1] == pytest.approx((images, done))
        assert len(curves["fixed/robust_accuracy"]) == images


def test_a_resumed_run_shows_what_an_undisturbed_one_does(curves, npz, tmp_path):
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(tmp_path, npz, at=6)
    resumed, seen = run(tmp_path, npz, resume=True)
    assert [curves["fixed/robust_accuracy"][-1][0] for curves in seen] == [1]  # this session's
    assert resumed.curves == curves
    again, seen = run(tmp_path, npz, resume=True)  # nothing is missing any more
    assert seen == []
    assert again.curves.keys() == curves.keys()
    assert again.curves["fixed/robust_accuracy"] == curves["fixed/robust_accuracy"]


def test_it_needs_the_records(npz, tmp_path):
    module = PurifiedClassifier(tiny.IdentityPurifier(), tiny.classifier(), protocols=())
    with pytest.raises(InputError, match="Records"):
        tiny.trainer(tmp_path, Dashboard()).test(module, CIFAR10DataModule(source=npz))


def test_a_command_writes_it_and_says_how_it_goes(tmp_path, capsys):
    more = ("--data.limit", "4", "--model.protocols", "[base,fixed]")
    assert main(tiny.quick_test(tiny.denoiser_file(tmp_path), tmp_path, *more)) == 0
    files = RunFiles(tiny.run_folder(tmp_path))
    curves = files.curves
    for name, metric in files.summary["metrics"].items():
        if metric["value"]:
            assert curves[name][-1] == pytest.approx((4, metric["value"])), name
    assert "attack/fixed/loss" in curves
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("images ")]
    percent = [
        100 * files.summary["metrics"][f"{p}/robust_accuracy"]["value"] for p in ("base", "fixed")
    ]
    assert f"robust base {percent[0]:.0f}, fixed {percent[1]:.0f} %" in lines[-1]

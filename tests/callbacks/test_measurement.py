"""Measurements: when they are asked, what they refuse, how reports show what they register."""

import inspect
from pathlib import Path

import pytest
import tiny
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from measured_run import MeasuredRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import IdentityPurifier

from lit_purify import callbacks
from lit_purify.attacks import PGD, PGDEOT
from lit_purify.callbacks import (
    AdversarialExamples,
    AttackAgreement,
    AttackMagnitude,
    BaseClassifierCurve,
    CompressionRate,
    DistanceTrajectories,
    ImageGrid,
    ImageQuality,
    JacobianSpectrum,
    MaskingDiagnostics,
    Measurement,
    OutputVariability,
    Records,
    Summary,
)
from lit_purify.data import CIFAR10DataModule
from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation
from lit_purify.modules import PurifiedClassifier
from lit_purify.purifiers import GaussianNoise
from lit_purify.types import OTHER, InputError

N = 7
MEASUREMENTS = [
    kind
    for name in callbacks.__all__
    if issubclass(kind := getattr(callbacks, name), Measurement) and not inspect.isabstract(kind)
]
MADE = {
    ImageQuality: lambda: ImageQuality(features="classifier"),
    JacobianSpectrum: lambda: JacobianSpectrum(predict_compression=True),
    AttackAgreement: lambda: AttackAgreement(eot=PGDEOT(steps=1)),
}
"""Those whose defaults would leave something out, or need a download."""


class Brightness(Measurement):
    """A contributor's own: the mean of an image, and whether it is bright."""

    def __init__(self, *, forgets=False, **named):
        self.forgets = forgets
        self.named = named
        self.calls = []

    def prepare(self, trainer, module):
        self.calls.append("prepare")
        module.add_metric("brightness/mean", MeanWithDeviation(unit="nit"), **self.named)
        module.add_metric("brightness/bright", IntervalAccuracy())

    def measure(self, trainer, module, outputs, batch):
        self.calls.append("measure")
        mean = batch["image"].mean((1, 2, 3))
        module.record("brightness/mean", mean)
        if not self.forgets:
            module.record("brightness/bright", mean > 0)

    def figures(self, trainer, module, table):
        self.calls.append("figures")
        self.drawn = table
        return {"brightness": Figure(), "brightness/of_all": Figure()}


def run(npz: str, folder: Path, *more, logger=False, smoke=False, **options) -> Brightness:
    measurement = Brightness(**options)
    trainer = tiny.trainer(folder, measurement, *more, logger=logger, fast_dev_run=smoke)
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), protocols=())
    trainer.test(module, CIFAR10DataModule(source=npz, batch_size=4), verbose=False)
    return measurement


def pictures(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.png")}


class TestFigures:
    def test_they_are_drawn_once_from_the_whole_records_and_again_of_a_finished_run(
        self, npz, tmp_path
    ):
        found = run(npz, tmp_path, Records())
        assert found.calls == ["prepare", "measure", "measure", "figures"]
        assert pictures(tmp_path) == {"brightness.png", "brightness_of_all.png"}
        (tmp_path / "brightness.png").unlink()
        again = run(npz, tmp_path, Records(resume=True))
        assert again.calls == ["prepare", "figures"]
        for one in (found, again):
            assert one.drawn["index"].tolist() == list(range(N))
            assert one.drawn["brightness/mean"].tolist() == found.drawn["brightness/mean"].tolist()
        assert "brightness.png" in pictures(tmp_path)
        for picture in tmp_path.glob("*.png"):
            picture.unlink()
        without = run(npz, tmp_path)  # what lies in the folder is of another run
        assert without.calls == ["prepare", "measure", "measure"]
        assert not pictures(tmp_path)

    def test_every_tensorboard_logger_gets_them(self, npz, tmp_path):
        boards = [TensorBoardLogger(tmp_path / "b"), TensorBoardLogger(tmp_path / "c")]
        run(npz, tmp_path, Records(), logger=[CSVLogger(tmp_path / "a"), *boards])
        for logger in boards:
            events = EventAccumulator(logger.log_dir)
            events.Reload()
            assert set(events.Tags()["images"]) == {"brightness", "brightness/of_all"}

    def test_a_smoke_test_leaves_no_trace(self, npz, tmp_path):
        found = run(npz, tmp_path, Records(), Summary(), smoke=True)
        assert found.calls == ["prepare", "measure"]
        assert not list(tmp_path.iterdir())


class TestOfAContributor:
    @pytest.mark.parametrize(
        ("named", "section", "label"),
        [
            ({}, OTHER, "brightness/mean"),
            ({"section": "Light", "label": "Brightness"}, "Light", "Brightness"),
        ],
    )
    def test_it_has_a_row_in_the_table(self, npz, tmp_path, capsys, named, section, label):
        run(npz, tmp_path, Records(), Summary(), **named)
        printed = capsys.readouterr().out
        found = MeasuredRun(tmp_path)
        value = found.metrics["brightness/mean"]["value"]
        lines = [line for line in printed.splitlines() if label in line]
        assert any(f"{value:.3f} nit" in line for line in lines)
        assert section in printed
        assert any("100.0 %" in x for x in printed.splitlines() if "brightness/bright" in x)
        shown = found.summary["labels"]["brightness/mean"]
        assert shown == {"section": section, "label": label, "unit": "nit"}
        assert found.column("brightness/mean") == pytest.approx(
            tiny.images_and_labels(N)[0].mean((1, 2, 3)).tolist()
        )

    def test_what_is_registered_must_be_recorded(self, npz, tmp_path):
        with pytest.raises(ValueError, match="brightness/bright"):
            run(npz, tmp_path, forgets=True)

    def test_it_is_abstract(self):
        with pytest.raises(TypeError, match="abstract"):
            Measurement()


def prepared(npz, folder, *tested, protocols=("base", "fixed", "transfer", "fresh"), **options):
    """The module after the set-up of a test with these callbacks."""
    trainer = tiny.trainer(folder, *tested, **options)
    trainer.datamodule = CIFAR10DataModule(source=npz)
    trainer.datamodule.setup("test")
    module = PurifiedClassifier(GaussianNoise(), tiny.classifier(), protocols=protocols)
    for callback in tested:
        callback.setup(trainer, module, "test")
    return module


def make(kind):
    return MADE.get(kind, kind)()


def test_every_metric_of_this_package_has_a_label_a_section_and_its_unit(npz, tmp_path):
    attack = AdversarialExamples(PGD(steps=1))
    module = prepared(npz, tmp_path, attack, *map(make, MEASUREMENTS))
    assert len(MEASUREMENTS) == 13
    labels = [(shown.section, shown.label) for shown in module.registered.values()]
    assert len(set(labels)) == len(labels)
    for name, shown in module.registered.items():
        assert shown.section != OTHER
        assert shown.label != name
    shares = {name for name, shown in module.registered.items() if shown.unit == "%"}
    assert shares == {
        *(name for name in module.registered if "accuracy" in name or "_nonfinite" in name),
        *(f"{on}/{what}_gradient" for on in module.surfaces for what in ("zero", "nonfinite")),
        *("jacobian/share_below_0.25", "jacobian/share_above_1", "masking/zero_gradient"),
        *("masking/nonfinite_gradient", "masking/wrong_gradient"),
        *(n for n in module.registered if n.startswith("prediction/") and n != "prediction/radius"),
        *("masking/lost_to_longer_attack", "certified/abstained"),
    }


@pytest.mark.parametrize("kind", [Records, Summary, AdversarialExamples, *MEASUREMENTS])
def test_another_module_is_refused(tmp_path, kind):
    callback = AdversarialExamples(PGD()) if kind is AdversarialExamples else make(kind)
    with pytest.raises(InputError, match=f"{kind.__name__} .*PurifiedClassifier"):
        callback.setup(tiny.trainer(tmp_path), LightningModule(), "test")


@pytest.mark.parametrize("kind", [CompressionRate, JacobianSpectrum, OutputVariability])
def test_a_precision_that_rounds_its_numbers_away_is_refused(npz, tmp_path, kind):
    with pytest.raises(InputError, match=f"bf16-mixed .*{kind.__name__}"):
        prepared(npz, tmp_path, kind(), precision="bf16-mixed")


@pytest.mark.parametrize("kind", [AttackAgreement, BaseClassifierCurve, MaskingDiagnostics])
def test_one_that_repeats_the_attack_needs_one(npz, tmp_path, kind):
    with pytest.raises(InputError, match="AdversarialExamples"):
        prepared(npz, tmp_path, kind())


@pytest.mark.parametrize(
    ("kind", "protocols"),
    [
        *((AttackAgreement, names) for names in [(), ("base",), ("base", "fresh")]),
        *((AttackMagnitude, names) for names in [(), ("fresh",)]),
        *((ImageQuality, names) for names in [(), ("base",), ("transfer",)]),
    ],
)
def test_one_that_needs_another_protocol_is_refused(npz, tmp_path, kind, protocols):
    with pytest.raises(InputError, match=f"{kind.__name__} .*add fixed"):
        prepared(npz, tmp_path, make(kind), protocols=protocols)


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (CompressionRate, "eps", [0, 1.5]),
        (DistanceTrajectories, "levels", [[0], ["-8/255"], [1.5], ["nan"], ["8/255", 8 / 255]]),
        (BaseClassifierCurve, "rates", [[], [-0.1], [float("nan")]]),
        (BaseClassifierCurve, "eps", [0]),
        (BaseClassifierCurve, "runs", [["nowhere"]]),
        (JacobianSpectrum, "mode", ["sparse"]),
        (JacobianSpectrum, "differentiation", ["both"]),
        (JacobianSpectrum, "images", [-1]),
        (JacobianSpectrum, "top_k", [0]),
        (JacobianSpectrum, "probes", [1]),
        (JacobianSpectrum, "lanczos_steps", [0]),
        (JacobianSpectrum, "rows_per_pass", [0]),
        (MaskingDiagnostics, "longer", [1]),
        (MaskingDiagnostics, "samples", [-1]),
        (OutputVariability, "inputs", [1]),
        (OutputVariability, "draws", [0]),
        (OutputVariability, "eps", [0]),
        (OutputVariability, "rows_per_pass", [0]),
        (ImageGrid, "count", [0]),
    ],
)
def test_arguments_are_checked(kind, name, values):
    for value in values:
        with pytest.raises(InputError, match=name.rstrip("s")):
            kind(**{name: value})


def test_budgets_are_numbers_or_fractions_and_files_are_used():
    for kind in (CompressionRate, BaseClassifierCurve, OutputVariability):
        with pytest.raises(InputError, match="8/255"):
            kind(eps="wide")
    with pytest.raises(InputError, match="8/255"):
        DistanceTrajectories(levels=["wide"])
    with pytest.raises(InputError, match="inception_weights"):
        ImageQuality(features="classifier", inception_weights="weights.pth")


@pytest.mark.parametrize("name", ["glare", "/glare", "glare/", "where/glare"])
def test_a_name_that_is_no_column_is_refused(name):
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
    with pytest.raises(ValueError, match="expected"):
        module.record(name, torch.zeros(2))


def test_a_column_of_another_length_is_refused():
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), protocols=())
    module.registered.clear()
    module.record("glare/size", torch.zeros(3))
    batch = {"index": torch.arange(2), "label": torch.zeros(2)}
    with pytest.raises(ValueError, match="batch of 2"):
        module.on_test_batch_end({}, batch, 0)


@pytest.mark.parametrize(
    ("values", "where", "word"),
    [
        (torch.zeros(2), torch.tensor([0, 1]), "bool"),
        (torch.zeros(2), torch.tensor([True]), "bool"),
        (torch.zeros(2, dtype=torch.complex64), None, "complex"),
    ],
)
def test_values_and_masks_that_mean_nothing_are_refused(values, where, word):
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
    with pytest.raises(ValueError, match=word):
        module.record("glare/size", values, where=where)


def test_a_column_is_recorded_once_per_batch_and_alike_in_all():
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), protocols=())
    module.registered.clear()
    batch = {"index": torch.arange(2), "label": torch.arange(2)}
    module.record("glare/size", torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="already"):
        module.record("glare/size", torch.ones(2))
    module.on_test_batch_end({}, batch, 0)
    assert module.store.collect()["glare/size"].dtype == torch.float32
    module.on_test_batch_start(batch, 1)
    module.record("glare/size", torch.zeros(2, 3))
    with pytest.raises(ValueError, match="every batch"):
        module.on_test_batch_end({}, batch, 1)

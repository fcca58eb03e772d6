"""When a measurement is asked, and where its figures go."""

from pathlib import Path

import pytest
import tiny
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import IdentityPurifier

from lit_purify.callbacks import Measurement, Records
from lit_purify.data import CIFAR10DataModule
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.store import read_rows

N = 5


class Brightness(Measurement):
    """The mean of an image."""

    def __init__(self):
        self.calls = []

    def prepare(self, trainer, module):
        self.calls.append("prepare")
        module.add_metric("brightness/mean", MeanWithDeviation())

    def measure(self, trainer, module, outputs, batch):
        self.calls.append("measure")
        module.record("brightness/mean", batch["image"].mean((1, 2, 3)))

    def figures(self, trainer, module, records, run):
        self.calls.append("figures")
        self.drawn = read_rows(records, run)
        return {"brightness": Figure(), "brightness/of_all": Figure()}


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))


def run(npz: str, folder: Path, *callbacks, logger=False, smoke=False) -> Brightness:
    measurement = Brightness()
    trainer = tiny.trainer(folder, measurement, *callbacks, logger=logger, fast_dev_run=smoke)
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), protocols=())
    trainer.test(module, CIFAR10DataModule(source=npz, batch_size=3), verbose=False)
    return measurement


def pictures(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.png")}


def test_figures_are_drawn_once_from_the_whole_records(npz, tmp_path):
    found = run(npz, tmp_path, Records())
    assert found.calls == ["prepare", "measure", "measure", "figures"]
    assert {row["index"] for row in found.drawn if "mean" in row} == set(range(N))
    assert pictures(tmp_path) == {"brightness.png", "brightness_of_all.png"}


def test_a_finished_run_that_is_resumed_is_drawn_again(npz, tmp_path):
    run(npz, tmp_path, Records())
    (tmp_path / "brightness.png").unlink()
    found = run(npz, tmp_path, Records(resume=True))
    assert found.calls == ["prepare", "figures"]
    assert "brightness.png" in pictures(tmp_path)


def test_every_tensorboard_logger_gets_them(npz, tmp_path):
    loggers = [
        CSVLogger(tmp_path / "a"),
        TensorBoardLogger(tmp_path / "b"),
        TensorBoardLogger(tmp_path / "c"),
    ]
    run(npz, tmp_path, Records(), logger=loggers)
    for logger in loggers[1:]:
        events = EventAccumulator(logger.log_dir)
        events.Reload()
        assert set(events.Tags()["images"]) == {"brightness", "brightness/of_all"}


def test_without_records_nothing_is_drawn(npz, tmp_path):
    run(npz, tmp_path, Records())
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    found = run(npz, tmp_path)  # what lies in the folder is of another run
    assert found.calls == ["prepare", "measure", "measure"]
    assert not pictures(tmp_path)


def test_a_smoke_test_leaves_no_trace(npz, tmp_path):
    found = run(npz, tmp_path, Records(), smoke=True)
    assert found.calls == ["prepare", "measure"]
    assert not list(tmp_path.iterdir())


def test_it_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Measurement()

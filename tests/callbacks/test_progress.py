"""What the progress bar says while a batch is attacked, tested and measured."""

import io

import pytest
import tiny
from rich.console import Console
from rich.progress import Progress

from lit_purify.attacks import PGD, PGDEOT
from lit_purify.callbacks import (
    AdversarialExamples,
    AttackAgreement,
    BaseClassifierCurve,
    DistanceTrajectories,
    EvaluationProgress,
    MaskingDiagnostics,
    OutputVariability,
)
from lit_purify.data import CIFAR10DataModule
from lit_purify.modules import PurifiedClassifier

N = 2


@pytest.fixture
def shown(monkeypatch):
    """What every update of a bar says: (activity, completed images)."""
    said = []
    update = Progress.update

    def spy(self, task, **fields):
        update(self, task, **fields)
        said.append((fields["activity"], self.tasks[task].completed))

    monkeypatch.setattr(Progress, "update", spy)
    return said


def run(tmp_path, *callbacks, terminal=True, bar=True):
    progress = EvaluationProgress()
    progress._console = Console(file=io.StringIO(), force_terminal=terminal)
    npz = str(tiny.npz_file(tmp_path / "images.npz", N))
    trainer = tiny.trainer(
        tmp_path,
        *([progress] if bar else []),
        AdversarialExamples(PGD(eps="1/255", steps=2)),
        *callbacks,
        enable_progress_bar=bar,
    )
    module = PurifiedClassifier(tiny.ScalingPurifier(factor=0.5), tiny.classifier())
    trainer.test(module, CIFAR10DataModule(source=npz, batch_size=N), verbose=False)
    return progress


def test_the_attack_moves_the_bar_and_what_follows_leaves_it_there(shown, tmp_path):
    run(tmp_path, DistanceTrajectories(levels=["8/255"]))
    assert shown == [
        ("", 0),
        ("attack (base) 1/2", 0.5),
        ("attack (base) 2/2", 1),
        ("attack (fixed) 1/2", 1.5),
        ("attack (fixed) 2/2", 2),
        ("test", 2),
        ("DistanceTrajectories", 2),
        ("DistanceTrajectories 0/2", 2),
        ("DistanceTrajectories 1/2", 2),
        ("", 2),
    ]


def test_measurements_that_attack_say_how_far_they_are(shown, tmp_path):
    eot = PGDEOT(eps="1/255", steps=1, draws=3)
    run(
        tmp_path,
        BaseClassifierCurve(rates=[0, 0.5]),
        AttackAgreement(eot=eot),
        MaskingDiagnostics(longer=2),
    )
    said = [activity for activity, _ in shown]
    assert said[said.index("test") + 1 : -1] == [
        "BaseClassifierCurve",
        *(f"BaseClassifierCurve: rate 0.5, attack {k}/2" for k in (1, 2)),
        "AttackAgreement",
        *(f"AttackAgreement: PGD {k}/2" for k in (1, 2)),
        "AttackAgreement: PGDEOT 3/3",
        "MaskingDiagnostics",
        *(f"MaskingDiagnostics: longer attack {k}/4" for k in range(1, 5)),
    ]


def test_the_draws_are_counted_over_all_groups_of_a_batch(shown, tmp_path):
    run(tmp_path, OutputVariability(inputs=2, draws=4, rows_per_pass=2))  # one image at a time
    said = [activity for activity, _ in shown if activity.startswith("OutputVariability ")]
    assert said == [f"OutputVariability {k}/8" for k in range(8)]


@pytest.mark.parametrize(("terminal", "bar"), [(False, True), (True, False)])
def test_without_a_bar_nothing_is_shown(shown, tmp_path, capsys, terminal, bar):
    run(tmp_path, DistanceTrajectories(levels=["8/255"]), terminal=terminal, bar=bar)
    assert not shown
    assert "DistanceTrajectories" not in capsys.readouterr().err

"""What is wrong with a defence is told before its numbers are, or the run is refused."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch import LightningDataModule
from tiny import IdentityPurifier, evaluate
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_purify.attacks import BPDA, Attack, Uniform
from lit_purify.callbacks import ImageGrid, MaskingDiagnostics, Records, Summary
from lit_purify.classifiers import Classifier, from_module
from lit_purify.data import CIFAR10DataModule
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, NoiseConfiguration, Purifier
from lit_purify.functional import wilson_interval
from lit_purify.modules import PurifiedClassifier
from lit_purify.modules.preflight import preflight
from lit_purify.records import read_summary
from lit_purify.report import flags
from lit_purify.types import Batch, InputError

N = 7
SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))


class Changing(Purifier):
    """Does what a function says."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return self.change(images)  # type: ignore[no-any-return]


class NeverEvaluates(nn.Module):
    """Stays in training mode whatever it is told."""

    def train(self, mode: bool = True) -> "NeverEvaluates":
        return super().train(True)

    def forward(self, images: Tensor) -> Tensor:
        return images


def network(*first: nn.Module) -> Classifier:
    """A classifier that starts with these modules."""
    return from_module(nn.Sequential(*first, tiny.classifier()), 10, SHAPE)


def dropout_at_work(x: Tensor) -> Tensor:
    return F.dropout(x, 0.5, training=True)


class Does(nn.Module):
    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(images)  # type: ignore[no-any-return]


def tried(
    purifier: Purifier | None = None, classifier: Classifier | None = None, scale: float = 1
) -> list[str]:
    """The flags of a defence, before any attack."""
    images, labels = tiny.images_and_labels(2)
    batch = Batch(image=images * scale, label=labels, index=torch.tensor([5, 9]))
    defence = Defence(classifier or tiny.classifier(), purifier or IdentityPurifier())
    with torch.no_grad():
        found = preflight(defence, FixedNoise(0), batch, attacked=True)
    assert found["indices"] == [5, 9]
    assert found["num_classes"] == 10
    return flags({}, {}, found)


class TestTried:
    def test_a_sound_defence(self) -> None:
        assert tried() == []
        assert tried(tiny.NoisyPurifier()) == []

    @pytest.mark.parametrize("change", [dropout_at_work, lambda x: x + 0.05 * torch.randn_like(x)])
    def test_chance_that_no_seed_names(self, change: Any) -> None:
        (flag,) = tried(Changing(change))
        assert "purifier answers the same image differently" in flag
        (flag,) = tried(classifier=network(Does(change)))
        assert "classifier answers the same image differently" in flag

    @pytest.mark.parametrize(
        "change",
        [
            nn.BatchNorm2d(3, track_running_stats=False),
            lambda x: x - 0.5 * x.mean((0, 2, 3), keepdim=True),
            lambda x: x * len(x) / 2,
        ],
    )
    def test_an_answer_that_hangs_on_the_rest_of_the_batch(self, change: Any) -> None:
        told = tried(Changing(change))
        assert any(
            "purifier answers an image differently when it is alone" in flag for flag in told
        )
        (flag,) = tried(classifier=network(Does(change)))
        assert "classifier answers an image differently when it is alone" in flag

    def test_images_of_another_scale(self) -> None:
        (flag,) = tried(scale=1 / 255)
        assert "nearly black" in flag

    @pytest.mark.parametrize(
        "change", [lambda x: x * 255, lambda x: x * 4 - 2, lambda x: x * 2 - 1]
    )
    def test_purified_images_of_another_scale(self, change: Any) -> None:
        (flag,) = tried(Changing(change))
        assert "purified images range over" in flag

    def test_images_changed_in_place(self) -> None:
        with pytest.raises(InputError, match=r"purifier.*changes the images"):
            tried(Changing(lambda x: x.mul_(0.9)))
        with pytest.raises(InputError, match=r"classifier.*changes the images"):
            tried(classifier=network(Does(lambda x: x.sub_(0.5))))

    def test_probabilities_in_place_of_logits(self) -> None:
        softmax = nn.Sequential(tiny.classifier(), nn.Softmax(1))
        (flag,) = tried(classifier=from_module(softmax, 10, SHAPE))
        assert "probabilities" in flag
        log_softmax = nn.Sequential(tiny.classifier(), nn.LogSoftmax(1))
        assert tried(classifier=from_module(log_softmax, 10, SHAPE)) == []

    def test_training_mode(self) -> None:
        (flag,) = tried(classifier=network(NeverEvaluates()))
        assert "training mode" in flag
        assert "classifier" in flag

    def test_some_answers_are_not_finite(self) -> None:
        images, _ = tiny.images_and_labels(2)
        bright = images.amax((1, 2, 3)).argmax()

        def change(x: Tensor) -> Tensor:
            at = x.flatten(1).amax(1).view(-1, 1, 1, 1) == images[bright].max()
            return torch.where(at, torch.inf, x)

        (flag,) = [flag for flag in tried(Changing(change)) if "not finite" in flag]
        assert "purifier" in flag  # and the classifier, which was handed them, is not blamed

    @pytest.mark.parametrize("value", [torch.nan, -torch.inf])
    def test_no_answer_is_finite(self, value: float) -> None:
        with pytest.raises(InputError, match=r"purifier .* not finite"):
            tried(Changing(lambda x: x * 0 + value))
        with pytest.raises(InputError, match=r"classifier .* not finite"):
            tried(classifier=network(Does(lambda x: x * 0 + value)))

    @pytest.mark.parametrize(
        ("change", "keyword"),
        [
            (lambda x: x[:, :1], r"\(2, 1, 32, 32\)"),
            (lambda x: F.avg_pool2d(x, 2), r"\(2, 3, 16, 16\)"),
            (lambda x: (x, x), "tuple"),
            (lambda x: x.numpy(), "ndarray"),
        ],
    )
    def test_a_purifier_gives_something_else(self, change: Any, keyword: str) -> None:
        with pytest.raises(InputError, match=f"purifier .*{keyword}"):
            tried(Changing(change))

    @pytest.mark.parametrize(
        ("logits", "keyword"),
        [
            (lambda x: {"logits": x}, "dict"),
            (lambda x: x.mean(1), r"returned \(2,\)"),
            (lambda x: x[:, :9], r"returned \(2, 9\)"),
        ],
    )
    def test_a_classifier_gives_something_else(self, logits: Any, keyword: str) -> None:
        class Wrapped(Classifier):
            num_classes = 10

            def __init__(self) -> None:
                super().__init__()
                self.inner = tiny.classifier()

            def forward(self, images: Tensor) -> Tensor:
                return logits(self.inner(images))  # type: ignore[no-any-return]

        with pytest.raises(InputError, match=f"classifier .*{keyword}"):
            tried(classifier=Wrapped())

    @pytest.mark.parametrize("change", [lambda x: (x * 8).round() / 8, lambda x: x.sign()])
    def test_a_gradient_of_zero(self, change: Any) -> None:
        (flag,) = tried(Changing(change))
        assert "exactly zero reaches" in flag

    @pytest.mark.parametrize(
        "change", [lambda x: x.detach().clone(), lambda x: torch.from_numpy(x.numpy().copy())]
    )
    def test_no_gradient(self, change: Any) -> None:
        (flag,) = tried(Changing(change))
        assert "No gradient" in flag

    def test_what_the_attack_asked_for_counts_afterwards(self) -> None:
        found = {"zero_gradient": None}
        assert len(flags({}, {}, found)) == 1
        assert flags({"fixed/zero_gradient": {"value": None}}, {}, found) == []


class TestRun:
    """What a whole run keeps and counts."""

    def run(self, npz: str, folder: Path, purifier: Purifier, **options: Any) -> dict[str, Any]:
        module = PurifiedClassifier(purifier, tiny.classifier(), protocols=("base", "fixed"))
        data = CIFAR10DataModule(source=npz, batch_size=4)
        evaluate(module, data, Records(), Summary(), folder=folder, **options)
        return read_summary(folder / "summary.json")

    def test_the_summary_has_what_was_found(self, npz: str, tmp_path: Path) -> None:
        summary = self.run(npz, tmp_path, IdentityPurifier())
        assert summary["preflight"]["indices"] == [0, 1]
        assert summary["preflight"]["nonfinite"] == []
        assert summary["preflight"]["draws_noise"] is False
        assert summary["preflight"]["zero_gradient"] == 0
        assert summary["flags"] == []

    def test_answers_that_are_not_finite_are_counted(self, npz: str, tmp_path: Path) -> None:
        pixels = tiny.images_and_labels(N)[0][:, 0, 0, 0]
        threshold = pixels[:2].mean()  # so that one of the first two is broken
        broken = (pixels > threshold).double().mean().item()

        def change(images: Tensor) -> Tensor:
            return torch.where(images[:, :1, :1, :1] > threshold, torch.nan, images)

        summary = self.run(npz, tmp_path, Changing(change))
        metrics = summary["metrics"]
        assert metrics["purified/clean_nonfinite"]["value"] == pytest.approx(broken)
        assert metrics["base/clean_nonfinite"]["value"] == 0
        assert metrics["base/robust_nonfinite"]["value"] == 0
        assert any("purified/clean_nonfinite" in flag for flag in summary["flags"])

    def test_a_hidden_gradient_is_told_without_any_diagnostics(
        self, npz: str, tmp_path: Path
    ) -> None:
        summary = self.run(npz, tmp_path, Changing(lambda x: (x * 8).round() / 8))
        assert summary["metrics"]["fixed/zero_gradient"]["value"] == 1
        assert summary["metrics"]["base/zero_gradient"]["value"] == 0
        (flag,) = [flag for flag in summary["flags"] if "exactly zero" in flag]
        assert "fixed noise" in flag

    def test_an_attack_without_gradients_has_none_to_count(self, npz: str, tmp_path: Path) -> None:
        summary = self.run(npz, tmp_path, IdentityPurifier(), attack=Uniform(eps=0.01))
        assert summary["metrics"]["fixed/zero_gradient"]["value"] is None
        assert summary["flags"] == []

    @pytest.mark.parametrize("attack", [BPDA(steps=2, eps=0.01), Uniform(eps=0.01)])
    def test_a_purifier_in_numpy_is_sound_where_nobody_differentiates_it(
        self, npz: str, tmp_path: Path, attack: Attack
    ) -> None:
        purifier = Changing(lambda x: torch.from_numpy(x.numpy().copy()))
        summary = self.run(npz, tmp_path, purifier, attack=attack)
        assert summary["preflight"]["zero_gradient"] is None
        assert summary["flags"] == []

    def test_it_is_told_before_the_first_attack(self, npz: str, tmp_path: Path) -> None:
        class Fails(Uniform):
            def perturb(self, *_: Any) -> Tensor:
                found.update(read_summary(tmp_path / "summary.json"))
                raise KeyError

        found: dict[str, Any] = {}
        with pytest.raises(KeyError):
            self.run(npz, tmp_path, Changing(lambda x: x * 0 + 0.5), attack=Fails(eps=0.01))
        assert found["status"] == "running"
        assert "exactly zero" in found["flags"][0]

    def test_other_data_may_call_anything_their_test_set(self, tmp_path: Path) -> None:
        images, labels = tiny.images_and_labels(4)

        class Pairs(LightningDataModule):
            test_set = TensorDataset(images, labels)

            def test_dataloader(self) -> Any:
                batch = Batch(image=images, label=labels, index=torch.arange(4))
                return DataLoader([batch], batch_size=None)

        module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), protocols=("fixed",))
        measured = MaskingDiagnostics(), ImageGrid(count=1)
        metrics, _ = evaluate(module, Pairs(), *measured, folder=tmp_path)
        assert metrics["base/clean_accuracy"] == 3 / 4
        assert module.preflight == {}

    @pytest.mark.slow
    def test_nothing_is_compiled_for_it(self, npz: str) -> None:
        torch.compiler.reset()
        counters.clear()
        module = PurifiedClassifier(
            IdentityPurifier(), tiny.classifier(), protocols=[], compile=True
        )
        evaluate(module, CIFAR10DataModule(source=npz, batch_size=N))
        # With a gradient and without, whatever the size of a batch, and not once more for the row
        # that is tried alone.
        assert counters["stats"]["unique_graphs"] == 2

    def test_a_finished_run_keeps_what_was_found(self, npz: str, tmp_path: Path) -> None:
        first = self.run(npz, tmp_path, IdentityPurifier())
        module = PurifiedClassifier(
            IdentityPurifier(), tiny.classifier(), protocols=("base", "fixed")
        )
        data = CIFAR10DataModule(source=npz, batch_size=4)
        evaluate(module, data, Records(resume=True), Summary(), folder=tmp_path)
        assert read_summary(tmp_path / "summary.json")["preflight"] == first["preflight"]


class TestChance:
    @pytest.mark.parametrize(
        ("right", "n", "told"), [(10, 100, True), (2, 50, True), (1, 1, False)]
    )
    def test_clean_accuracy(self, right: int, n: int, told: bool) -> None:
        low, high = wilson_interval(right, n)
        entry = {"value": right / n, "low": low, "high": high, "n": n}
        metrics = {"base/clean_accuracy": entry}
        found = flags(metrics, {}, {"num_classes": 10})
        assert bool(found) is told
        assert flags(metrics, {}, {}) == []

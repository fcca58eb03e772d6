"""Similarity and Fréchet distance: in a run, from its records, after a stop, on processes."""

import hashlib
import json
import warnings

import pytest
import tiny
import torch
from oracles import fill
from processes import finish, forks
from safetensors.torch import load_file
from tiny import Failing, IdentityPurifier, NoisyPurifier, evaluate

from lit_purify.attacks import PGD
from lit_purify.callbacks import ImageQuality, Records, Summary
from lit_purify.classifiers import from_module, inception
from lit_purify.classifiers.features import ClassifierFeatures
from lit_purify.data import CIFAR10DataModule
from lit_purify.functional import feature_moments, frechet_distance
from lit_purify.metrics import structural_similarity
from lit_purify.modules import PurifiedClassifier
from lit_purify.report.summary import read_summary
from lit_purify.types import InputError

N = 7
WHEN = ("before", "after")

pytestmark = pytest.mark.filterwarnings("ignore:the Fréchet distance compares")


class Pooled(torch.nn.Module):
    """Means over patches of known weights as features, and ten classes; in float64."""

    def __init__(self, features):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, features, 16, stride=16)
        self.head = torch.nn.Linear(features, 10)
        fill(self.double(), seed=4, std=0.1)

    def forward(self, images):
        return self.head(torch.tanh(self.patches(images.double())).mean((2, 3)))


def classifier(features=12):
    return from_module(Pooled(features), 10, (3, 32, 32))


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))


@pytest.fixture(scope="module")
def run(npz):
    """A function that measures into a folder; returns (summary, logged, what was seen)."""

    def run(
        folder,
        purifier,
        *,
        features="classifier",
        batch_size=3,
        resume=False,
        dimension=12,
        protocols=("base", "fixed"),
        attack=None,
        **options,
    ):
        module = PurifiedClassifier(purifier, classifier(dimension), protocols=protocols, seed=3)
        data = CIFAR10DataModule(source=npz, batch_size=batch_size)
        callbacks = ImageQuality(features=features, **options), Records(resume=resume), Summary()
        logged, seen = evaluate(module, data, *callbacks, attack=attack, folder=folder)
        return read_summary(folder / "summary.json"), logged, seen

    return run


def quality(summary):
    return {name: m for name, m in summary["metrics"].items() if name.startswith("quality/")}


def distance(features, clean, other):
    pair = (feature_moments(features(images)) for images in (clean, other))
    return frechet_distance(*pair).item()


def test_every_figure_is_that_of_all_images_at_once(run, tmp_path):
    summary, logged, seen = run(tmp_path, NoisyPurifier())
    clean = torch.cat([batch["image"] for batch in seen.batches])
    compared = {
        "before": seen.adversarial("fixed"),
        "after": torch.cat([o["fixed/adversarial"].image for o in seen.outcomes]),
    }
    assert compared["after"].max() > 1  # the classifier saw it so, and so does the measurement
    features = ClassifierFeatures(classifier())
    found = quality(summary)
    assert len(found) == 4
    for when, images in compared.items():
        ssim = structural_similarity(images, clean)
        entry = found[f"quality/ssim_{when}"]
        assert entry["value"] == pytest.approx(ssim.mean().item(), rel=1e-9)
        assert entry["std"] == pytest.approx(ssim.std().item(), rel=1e-6)
        expected = distance(features, clean, images)
        assert found[f"quality/frechet_classifier_{when}"] == {
            "value": pytest.approx(expected, rel=1e-5),
            "n": N,
            "missing": 0,
            "dimension": 12,
        }
    for name, entry in found.items():
        assert logged[name] == pytest.approx(entry["value"], rel=1e-5), name


def test_what_nothing_changes_is_alike(run, tmp_path):
    summary, _, _ = run(tmp_path, IdentityPurifier(), attack=PGD(eps=0, steps=1))
    found = quality(summary)
    for when in WHEN:
        assert found[f"quality/ssim_{when}"]["value"] == pytest.approx(1, abs=1e-9)
        assert found[f"quality/frechet_classifier_{when}"]["value"] == pytest.approx(0, abs=1e-9)


def test_features_are_stored_under_the_figures_name(run, tmp_path):
    run(tmp_path, NoisyPurifier())
    stored = load_file(tmp_path / "records" / "tensors.safetensors")
    images = tiny.images_and_labels(N)[0]
    features = ClassifierFeatures(classifier())(images)
    for when in WHEN:
        tensor = stored[f"quality/frechet_classifier_{when}"]
        assert tensor.shape == (N, 2, 12)
        torch.testing.assert_close(tensor[:, 0].double(), features, rtol=1e-6, atol=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "records" / "rows.jsonl").open()]
    own = [row for row in rows if row["protocol"] == "quality"]
    keys = {"index", "protocol", "seed", "label", "ssim_before", "ssim_after"}
    assert [row["index"] for row in own] == list(range(N))
    assert all(set(row) == keys for row in own)


def test_batches_do_not_matter(run, tmp_path):
    one, logged, _ = run(tmp_path / "3", NoisyPurifier())
    other, other_logged, _ = run(tmp_path / "7", NoisyPurifier(), batch_size=7)
    for name, statistics in quality(one).items():
        assert quality(other)[name] == pytest.approx(statistics, rel=1e-5), name
        assert other_logged[name] == pytest.approx(logged[name], rel=1e-5), name


@pytest.mark.parametrize("at", [2, 4, 6])
def test_a_resumed_run_is_the_undisturbed_one(run, tmp_path, at):
    """Also in what is logged: the figure knows the samples of the first sitting."""
    whole, logged, _ = run(tmp_path / "whole", NoisyPurifier())
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(tmp_path / "broken", Failing(at))
    resumed, again, _ = run(tmp_path / "broken", Failing(None), resume=True)
    assert resumed["metrics"] == whole["metrics"]
    assert again == pytest.approx(logged, rel=1e-6)
    # Nothing is missing any more: nothing is evaluated, and the figures are still known.
    final, nothing, _ = run(tmp_path / "broken", Failing(0), resume=True)
    assert nothing == {}
    assert final["metrics"] == whole["metrics"]


def test_few_images_are_named_and_enough_are_not(run, tmp_path):
    with pytest.warns(UserWarning, match="7 samples in 12 dimensions"):
        run(tmp_path / "few", NoisyPurifier())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the Fréchet")
        summary, _, _ = run(tmp_path / "enough", NoisyPurifier(), dimension=2)
    assert quality(summary)["quality/frechet_classifier_after"]["dimension"] == 2


def test_similarity_alone(run, tmp_path):
    summary, _, _ = run(tmp_path, NoisyPurifier(), features=None)
    assert set(quality(summary)) == {"quality/ssim_before", "quality/ssim_after"}
    assert "quality_features" not in summary["settings"]


def test_the_features_are_in_the_settings(run, tmp_path):
    summary, _, _ = run(tmp_path, NoisyPurifier())
    settings = summary["settings"]
    assert settings["quality_features"] == "input of module.head of the classifier"
    assert settings["quality_features_dimension"] == 12


class Inception(torch.nn.Module):
    """In the place of the network, which takes seconds: it has been tested where it is built."""

    dimension, source = inception.DIMENSION, inception.InceptionFeatures.source

    def __init__(self, weights):
        super().__init__()
        assert weights == "weights.pth"

    def forward(self, images):
        return images.flatten(1)[:, : self.dimension]


def test_only_inception_features_are_called_fid(run, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_purify.callbacks.quality.InceptionFeatures", Inception)
    summary, _, seen = run(
        tmp_path, NoisyPurifier(), features="inception", inception_weights="weights.pth"
    )
    names = {f"quality/{kind}_{when}" for kind in ("ssim", "fid") for when in WHEN}
    assert set(quality(summary)) == names
    assert "pytorch-fid" in summary["settings"]["quality_features"]
    clean = torch.cat([batch["image"] for batch in seen.batches])
    expected = distance(lambda x: x.flatten(1)[:, :768], clean, seen.adversarial("fixed"))
    assert quality(summary)["quality/fid_before"]["value"] == pytest.approx(expected, rel=1e-5)


def test_without_weights_it_is_refused_before_any_work(run, tmp_path):
    purifier = NoisyPurifier()
    missing = str(tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"no file .*none\.pth.* or set features: classifier"):
        run(tmp_path, purifier, features="inception", inception_weights=missing)
    assert purifier.calls == []
    assert not (tmp_path / "records").exists()


def test_other_weights_are_refused(run, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()[:12]
    with pytest.raises(InputError, match=f"another file .*{found}"):
        run(tmp_path, NoisyPurifier(), features="inception", inception_weights=str(path))


@pytest.mark.parametrize("protocols", [("base",), ("transfer",), ()])
def test_without_the_fixed_protocol_it_is_refused(run, tmp_path, protocols):
    with pytest.raises(InputError, match="add fixed to"):
        run(tmp_path, NoisyPurifier(), protocols=protocols)


def test_weights_that_are_not_used_are_refused():
    with pytest.raises(InputError, match="given inception_weights and features classifier"):
        ImageQuality(features="classifier", inception_weights="weights.pth")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])
def test_processes_do_not_matter(tmp_path, processes):
    """Logged on two processes and recomputed from their records, it is the figure of one."""
    denoiser = tiny.denoiser_file(tmp_path)
    found = {}
    for count in (1, processes):
        folder = tmp_path / str(count)
        args = tiny.quick_test(
            denoiser,
            folder,
            *("--measure.compression", "null"),
            *("--measure.quality.features", "classifier"),
        )
        running = forks(args, tmp_path / f"logs_{count}", count)
        assert finish(running) == [0] * count, running[0].printed
        found[count] = quality(read_summary(tiny.run_folder(folder) / "summary.json"))
        events = logged(tiny.run_folder(folder))
        for name, statistics in found[count].items():
            assert events[name] == pytest.approx(statistics["value"], rel=1e-5), name
    assert len(found[1]) == 4
    for name, statistics in found[1].items():
        assert found[processes][name] == pytest.approx(statistics, rel=1e-9), name


def logged(folder):
    """The scalars of a run in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}

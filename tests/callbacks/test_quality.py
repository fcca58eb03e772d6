"""Similarity and Fréchet distance: in a run, from its records, after a stop, on processes."""

import warnings

import pytest
import tiny
import torch
from measured_run import MeasuredRun, measured_run
from oracles import fill
from processes import finish, forks
from tiny import IdentityPurifier, NoisyPurifier

from lit_purify.attacks import PGD
from lit_purify.callbacks import ImageQuality
from lit_purify.classifiers import from_module, inception
from lit_purify.classifiers.features import ClassifierFeatures
from lit_purify.functional import feature_moments, frechet_distance
from lit_purify.metrics import structural_similarity
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


@pytest.fixture
def run(npz):
    """A function that measures into a folder."""

    def run(folder, purifier, *, features="classifier", dimension=12, attack=None, **options):
        measure, of = ImageQuality(features=features, **options), classifier(dimension)
        return measured_run(folder, npz, purifier, measure, classifier=of, seed=3, attack=attack)

    return run


def distance(features, clean, other):
    pair = (feature_moments(features(images)) for images in (clean, other))
    return frechet_distance(*pair).item()


def test_the_surface_that_is_told(npz, tmp_path):
    quality = ImageQuality(features=None, surface="fresh")
    whole = measured_run(tmp_path, npz, NoisyPurifier(), quality, protocols=("fixed", "fresh"))
    clean = torch.cat([batch["image"] for batch in whole.seen.batches])
    images = torch.cat([outcome["fresh/adversarial"].image for outcome in whole.seen.outcomes])
    expected = [structural_similarity(x, clean) for x in (whole.seen.adversarial("fresh"), images)]
    for when, ssim in zip(WHEN, expected, strict=True):
        found = whole.of("quality/")[f"ssim_{when}"]["value"]
        assert found == pytest.approx(ssim.mean().item(), rel=1e-6)
    assert whole.settings["quality_surface"] == "fresh"


def test_every_metric_is_that_of_all_images_at_once(run, tmp_path):
    whole = run(tmp_path, NoisyPurifier())
    clean = torch.cat([batch["image"] for batch in whole.seen.batches])
    compared = {
        "before": whole.seen.adversarial("fixed"),
        "after": torch.cat([o["fixed/adversarial"].image for o in whole.seen.outcomes]),
    }
    assert compared["after"].max() > 1  # the classifier saw it so, and so does the measurement
    features = ClassifierFeatures(classifier())
    found = whole.of("quality/")
    assert len(found) == 4
    for when, images in compared.items():
        ssim = structural_similarity(images, clean)
        metric = found[f"ssim_{when}"]
        assert metric["value"] == pytest.approx(ssim.mean().item(), rel=1e-9)
        assert metric["std"] == pytest.approx(ssim.std().item(), rel=1e-6)
        expected = distance(features, clean, images)
        assert found[f"frechet_classifier_{when}"] == {
            "value": pytest.approx(expected, rel=1e-5),
            "n": N,
            "missing": 0,
            "dimension": 12,
        }
        stored = whole.tensors[f"quality/frechet_classifier_{when}"]
        assert stored.shape == (N, 2, 12)
        torch.testing.assert_close(stored[:, 0].double(), features(clean), rtol=1e-6, atol=1e-6)
    for name, metric in found.items():
        assert whole.logged[f"quality/{name}"] == pytest.approx(metric["value"], rel=1e-5), name
    assert {name for name in whole.rows[0] if "quality" in name} == {
        "quality/ssim_before",
        "quality/ssim_after",
    }
    assert whole.settings["quality_features"] == "input of module.head of the classifier"
    assert whole.settings["quality_features_dimension"] == 12


def test_what_nothing_changes_is_alike(run, tmp_path):
    found = run(tmp_path, IdentityPurifier(), attack=PGD(eps=0, steps=1)).of("quality/")
    for when in WHEN:
        assert found[f"ssim_{when}"]["value"] == pytest.approx(1, abs=1e-9)
        assert found[f"frechet_classifier_{when}"]["value"] == pytest.approx(0, abs=1e-9)


def test_few_images_are_named_and_enough_are_not(run, tmp_path):
    with pytest.warns(UserWarning, match="7 samples in 12 dimensions"):
        run(tmp_path / "few", NoisyPurifier())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the Fréchet")
        enough = run(tmp_path / "enough", NoisyPurifier(), dimension=2)
    assert enough.metrics["quality/frechet_classifier_after"]["dimension"] == 2


def test_similarity_alone(run, tmp_path):
    whole = run(tmp_path, NoisyPurifier(), features=None)
    assert set(whole.of("quality/")) == {"ssim_before", "ssim_after"}
    assert "quality_features" not in whole.settings


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
    options = {"features": "inception", "inception_weights": "weights.pth"}
    whole = run(tmp_path, NoisyPurifier(), **options)
    found = whole.of("quality/")
    assert set(found) == {f"{kind}_{when}" for kind in ("ssim", "fid") for when in WHEN}
    assert "pytorch-fid" in whole.settings["quality_features"]
    clean = torch.cat([batch["image"] for batch in whole.seen.batches])
    attacked = whole.seen.adversarial("fixed")
    expected = distance(lambda x: x.flatten(1)[:, :768], clean, attacked)
    assert found["fid_before"]["value"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("content", [None, b"other"])
def test_without_the_weights_it_is_refused_before_any_work(run, tmp_path, content):
    purifier, weights = NoisyPurifier(), tmp_path / "weights.pth"
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth"):
        run(tmp_path, purifier, features="inception", inception_weights=str(weights))
    assert purifier.calls == []
    assert not (tmp_path / "records").exists()


@pytest.mark.slow
def test_processes_do_not_matter(tmp_path):
    """Logged on two processes and computed from their records, it is the metric of one."""
    denoiser = tiny.denoiser_file(tmp_path)
    found = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        args = tiny.quick_test(
            denoiser,
            folder,
            *("--measure.compression", "null"),
            *("--measure.quality.features", "classifier"),
        )
        running = forks(args, tmp_path / f"logs_{count}", count)
        assert finish(running) == [0] * count, running[0].printed
        found[count] = MeasuredRun(tiny.run_folder(folder)).of("quality/")
        events = logged(tiny.run_folder(folder))
        for name, statistics in found[count].items():
            assert events[f"quality/{name}"] == pytest.approx(statistics["value"], rel=1e-5), name
    assert len(found[1]) == 4
    for name, statistics in found[1].items():
        assert found[2][name] == pytest.approx(statistics, rel=1e-9), name


def logged(folder):
    """The scalars of a run in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    curves = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    return {tag: curve[-1].value for tag, curve in curves.items() if curve}

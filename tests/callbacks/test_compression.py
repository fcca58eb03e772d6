"""Compression rates of purifiers whose rate is known."""

import pytest
import tiny
import torch
from tiny import IdentityPurifier, NoisyPurifier, ScalingPurifier, evaluate

from lit_purify.attacks import PGD
from lit_purify.callbacks import CompressionRate, Records, Summary
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import FixedNoise
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", 7))


def rates(npz, purifier, folder, *, protocols=("base", "fixed"), attack=None, **options):
    module = PurifiedClassifier(purifier, tiny.classifier(), protocols=protocols)
    data = CIFAR10DataModule(source=npz, batch_size=3)
    measure = CompressionRate(**options)
    _, seen = evaluate(module, data, measure, Records(), Summary(), attack=attack, folder=folder)
    metrics = read_summary(folder / "summary.json")["metrics"]
    return {name: metrics[name] for name in metrics if "compression" in name}, seen


@pytest.mark.parametrize("kind", ["uniform", "attack"])
def test_the_identity_has_rate_one(npz, tmp_path, kind):
    found, _ = rates(npz, IdentityPurifier(), tmp_path)
    assert found[f"{kind}/compression_rate"]["value"] == pytest.approx(1, abs=1e-6)
    assert found[f"{kind}/compression_rate"]["std"] == pytest.approx(0, abs=1e-6)
    assert found[f"{kind}/compression_rate"]["n"] == 7


@pytest.mark.parametrize("kind", ["uniform", "attack"])
@pytest.mark.parametrize("factor", [0.25, 0.9, 3.0])
def test_scaling_by_c_has_rate_c(npz, tmp_path, factor, kind):
    found, _ = rates(npz, ScalingPurifier(factor=factor), tmp_path)
    assert found[f"{kind}/compression_rate"]["value"] == pytest.approx(factor, rel=1e-5)


def test_noise_that_is_added_does_not_count(npz, tmp_path):
    # Both purifications share xi, so it cancels; under another xi the rate would be far above 1.
    found, _ = rates(npz, NoisyPurifier(), tmp_path)
    assert found["uniform/compression_rate"]["value"] == pytest.approx(1, abs=1e-5)
    assert found["attack/compression_rate"]["value"] == pytest.approx(1, abs=1e-5)


def test_the_parts_add_up(npz, tmp_path):
    found, seen = rates(npz, IdentityPurifier(), tmp_path)
    whole, robust, nonrobust = (
        found[f"attack/compression_rate{part}"] for part in ("", "_robust", "_nonrobust")
    )
    assert robust["n"] == int(seen.correct("fixed/adversarial").sum())
    assert robust["n"] + nonrobust["n"] == whole["n"] == 7
    assert min(robust["n"], nonrobust["n"]) > 0
    for part in (robust, nonrobust):
        assert part["value"] == pytest.approx(1, abs=1e-6)


def test_a_part_without_samples_has_no_value(npz, tmp_path):
    found, _ = rates(npz, IdentityPurifier(), tmp_path, attack=PGD(eps=0.2, steps=5))
    part = found["attack/compression_rate_robust"]
    assert part["n"] == 0
    assert part["value"] is None
    assert found["attack/compression_rate_nonrobust"]["n"] == 7


def test_a_perturbation_of_length_zero_has_no_rate(npz, tmp_path):
    found, _ = rates(npz, IdentityPurifier(), tmp_path, attack=PGD(eps=0, steps=1))
    assert found["attack/compression_rate"]["n"] == 0
    assert found["attack/compression_rate"]["missing"] == 7


def test_the_perturbation_is_uniform_and_not_clipped(npz):
    # The measurement purifies after the recorder has looked: only its call is left.
    module = PurifiedClassifier(purifier := NoisyPurifier(), tiny.classifier(), protocols=("base",))
    measure, images = CompressionRate(eps=0.5), tiny.images_and_labels(7)[0]
    evaluate(module, CIFAR10DataModule(source=npz, batch_size=7), measure)
    ((perturbed, seed, indices, _),) = purifier.calls
    assert seed == 0
    assert indices.tolist() == list(range(7))
    draw = FixedNoise(0).uniform(indices, like=images)
    assert torch.equal(perturbed, images + 0.5 * draw)
    assert perturbed.max() > 1


def test_without_an_attack_on_fixed_noise_there_is_only_the_uniform_rate(npz, tmp_path):
    found, _ = rates(npz, IdentityPurifier(), tmp_path, protocols=("base", "transfer"))
    assert set(found) == {"uniform/compression_rate"}


def test_the_width_is_checked():
    with pytest.raises(InputError, match="fraction such as 8/255"):
        CompressionRate(eps="wide")

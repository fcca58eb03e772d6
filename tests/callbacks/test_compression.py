"""Compression rates of purifiers whose rate is known."""

import pytest
import tiny
import torch
from measured_run import measured_run
from tiny import IdentityPurifier, NoisyPurifier, ScalingPurifier

from lit_purify.attacks import PGD
from lit_purify.callbacks import CompressionRate
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import FixedNoise
from lit_purify.modules import PurifiedClassifier


def measure(npz, folder, purifier, **options):
    return measured_run(folder, npz, purifier, CompressionRate(), **options)


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_scaling_by_c_has_rate_c(npz, tmp_path, factor):
    found = measure(npz, tmp_path, ScalingPurifier(factor=factor)).metrics
    for kind in ("uniform", "attack"):
        metric = found[f"{kind}/compression_rate"]
        assert metric["value"] == pytest.approx(factor, rel=1e-5)
        assert metric["std"] == pytest.approx(0, abs=1e-5)
        assert metric["n"] == 7


def test_a_run_that_purifies_nothing_has_none_and_says_so(npz, tmp_path):
    run = measure(npz, tmp_path, NoisyPurifier(), protocols=("base",))
    assert "base" in run.settings["compression_left_out"]
    assert not any("compression" in name for name in run.metrics)
    assert not run.seen.test_calls


def test_noise_that_is_added_does_not_count(npz, tmp_path):
    # Both purifications share xi, so it cancels; under another xi the rate would be far above 1.
    found = measure(npz, tmp_path, NoisyPurifier()).metrics
    assert found["uniform/compression_rate"]["value"] == pytest.approx(1, abs=1e-5)
    assert found["attack/compression_rate"]["value"] == pytest.approx(1, abs=1e-5)


def test_the_parts_add_up(npz, tmp_path):
    run = measure(npz, tmp_path, IdentityPurifier())
    whole, robust, nonrobust = (
        run.metrics[f"attack/compression_rate{part}"] for part in ("", "_robust", "_nonrobust")
    )
    assert robust["n"] == int(run.seen.correct("fixed/adversarial").sum())
    assert robust["n"] + nonrobust["n"] == whole["n"] == 7
    assert min(robust["n"], nonrobust["n"]) > 0
    for part in (robust, nonrobust):
        assert part["value"] == pytest.approx(1, abs=1e-6)


def test_a_part_without_samples_has_no_value(npz, tmp_path):
    found = measure(npz, tmp_path, IdentityPurifier(), attack=PGD(eps=0.2, steps=5)).metrics
    part = found["attack/compression_rate_robust"]
    assert (part["n"], part["value"]) == (0, None)
    assert found["attack/compression_rate_nonrobust"]["n"] == 7


def test_the_perturbation_is_uniform_and_not_clipped(npz):
    # The measurement purifies after the recorder has looked: only its call is left.
    module = PurifiedClassifier(purifier := NoisyPurifier(), tiny.classifier(), protocols=())
    images = tiny.images_and_labels(7)[0]
    tiny.evaluate(module, CIFAR10DataModule(source=npz, batch_size=7), CompressionRate(eps=0.5))
    ((perturbed, seed, indices, _),) = purifier.calls
    assert seed == 0
    assert indices.tolist() == list(range(7))
    draw = FixedNoise(0).uniform(indices, like=images)
    assert torch.equal(perturbed, images + 0.5 * draw)
    assert perturbed.max() > 1


def test_without_an_attack_on_fixed_noise_there_is_only_the_uniform_rate(npz, tmp_path):
    found = measure(npz, tmp_path, IdentityPurifier(), protocols=("base", "transfer")).metrics
    assert {name for name in found if "compression" in name} == {"uniform/compression_rate"}

"""A run of an attack that scores its images over several draws, on a defence that tosses a coin."""

import numpy as np
import pytest
import tiny
import torch
from measured_run import measured_run
from torch import nn

from lit_purify.attacks import PGDEOT
from lit_purify.callbacks import AttackCurves
from lit_purify.classifiers.wrap import from_module
from lit_purify.diffusion import DiffusionPurifier, FreshNoise, Purifier
from lit_purify.modules.protocols import fresh_noise

N, EVALUATIONS, TEST_DRAWS = 6, 8, 5
INDICES = torch.arange(N)


class Coin(Purifier):
    """A bright image or a dark one with probability 1/2 each, keyed by draw and sample."""

    def purify(self, images, noise, indices):
        return 0 * images + heads(noise, indices, images)

    def settings(self):
        return {"purifier": "Coin", "judged_by": "nobody"}


def heads(noise, indices, like):
    return (noise.uniform(indices, like=like)[:, :1, :1, :1] > 0).to(like)


class Brightness(nn.Module):
    """Class 0 of bright images, class 1 of dark ones."""

    def forward(self, images):
        bright = images.mean((1, 2, 3))
        return torch.stack([bright, 1 - bright], 1)


def attacked(folder, batch_size, **options):
    path = folder / "images.npz"
    np.savez(path, images=np.full((N, 32, 32, 3), 128, np.uint8), labels=np.zeros(N, np.int64))
    attack = PGDEOT(
        steps=2, draws=2, keep="best", evaluations=EVALUATIONS, judged_by="majority", **options
    )
    return measured_run(
        folder,
        str(path),
        Coin(),
        AttackCurves(),
        classifier=from_module(Brightness(), 2, (3, 32, 32)),
        data=tiny.TwoClasses,
        protocols=("fixed", "fresh"),
        attack=attack,
        batch_size=batch_size,
        test_draws=TEST_DRAWS,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return attacked(tmp_path_factory.mktemp("run"), 4, targets="all", restarts=2)


def tosses(configurations):
    """(draws, N)"""
    like = torch.zeros(N, 3, 32, 32)
    return torch.stack([heads(each, INDICES, like).flatten() for each in configurations])


def test_both_votes_are_told(run):
    """That of the attack's own draws, and that of the draws of the test."""
    stream = FreshNoise(0, "selection")
    own = tosses(stream.next_configuration() for _ in range(EVALUATIONS)).mean(0)
    test = tosses(fresh_noise(0, k) for k in range(TEST_DRAWS)).mean(0)
    seen = torch.tensor(run.column("fresh/attack_standing_in_selection"))
    assert torch.equal(seen[own > 0.5], torch.ones(int((own > 0.5).sum())))
    assert torch.equal(seen[own < 0.5], torch.zeros(int((own < 0.5).sum())))
    assert run.column("fresh/robust_accuracy") == pytest.approx(test.tolist())
    assert run.column("fresh/robust_accuracy_majority") == (test > 0.5).tolist()
    assert 0 < run.metrics["fresh/robust_accuracy"]["value"] < 1
    assert run.metrics["fresh/attack_standing_in_selection"]["value"] == seen.mean().item()


def test_a_deterministic_surface_needs_one_answer(run):
    standing = run.column("fixed/attack_standing_in_selection")
    assert standing == run.column("fixed/robust_accuracy")
    assert set(standing) <= {0.0, 1.0}


def test_curves_have_a_point_for_every_image_that_was_asked_about(run):
    # The clean image; in both attempts, two steps and the image after the last.
    assert run.tensors["fresh/attack_loss"].shape == (N, 1 + 2 * 3)
    assert (run.folder / "attack_curves.png").exists()


def test_settings_say_who_voted(run):
    said = run.settings
    assert (said["attack_evaluations"], said["targets"]) == (8, "all")
    assert said["judged_by"] == "nobody"  # the purifier's, which is asked first
    assert said["AdversarialExamples.judged_by"] == "majority"
    own = DiffusionPurifier(tiny.denoiser(), t_star=2).settings()
    assert not said.keys() & own.keys() - {"purifier"}  # such as schedule and evaluations


def test_the_batches_do_not_matter(run, tmp_path):
    other = attacked(tmp_path, 6, targets="all", restarts=2)
    assert other.rows == run.rows

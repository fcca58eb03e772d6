"""Randomized smoothing of purified classifiers: exact radii, noise by hand, what may not matter."""

import math

import pytest
import torch
from defences import convnet
from oracles import ALPHA_BAR, TinyDenoiser, draws, some_images
from scipy.stats import binom
from tiny import IdentityPurifier
from torch import nn

from lit_purify.diffusion import (
    DDIMSampler,
    DDPMSampler,
    DiffusionPurifier,
    FixedNoise,
    SplitNoise,
    derive_seed,
)
from lit_purify.diffusion.reverse_step import reverse_steps
from lit_purify.functional import ABSTAINED
from lit_purify.purifiers import AveragedPurifier, GaussianNoise, SmoothedClassifier
from lit_purify.purifiers.smoothing import denoised_smoothing
from lit_purify.types import InputError

NOISE = FixedNoise(3)
CLASSIFIER = convnet().double()
INDICES = torch.tensor([5, 2, 11])


def plane(images):
    """Class 0 where w (x - 1/2) > 0, with w = (3, 4) / 5."""
    score = ((images - 0.5).flatten(1) * torch.tensor([0.6, 0.8])).sum(1)
    return torch.stack([score, torch.zeros_like(score)], 1)


def test_the_certified_radius_of_a_plane_exceeds_its_distance_in_at_most_alpha_of_the_cases():
    cases, sigma, alpha, n = 1000, 0.25, 0.05, 50
    exact = torch.linspace(0.02, 0.4, cases)
    images = (0.5 + exact[:, None] * torch.tensor([0.6, 0.8])).view(cases, 1, 1, 2)
    smoothed = SmoothedClassifier(
        GaussianNoise(sigma=sigma), plane, noise=NOISE, rows_per_pass=cases
    )
    found = smoothed.certify(images, torch.arange(cases), n0=10, n=n, alpha=alpha)
    wrong = (found.prediction == 1) | ((found.prediction == 0) & (found.radius > exact))
    assert int(wrong.sum()) <= binom.ppf(0.999, cases, alpha)
    far = exact > sigma
    assert (found.prediction[far] == 0).float().mean() > 0.97
    assert (found.radius / exact)[far & (found.prediction == 0)].mean() > 0.6
    assert (found.prediction[exact < 0.03] == ABSTAINED).any()


def smoothed(purifier=None, **options):
    purifier = purifier or denoised_smoothing(TinyDenoiser(), sigma=0.25, num_steps=2)
    return SmoothedClassifier(purifier, CLASSIFIER, noise=NOISE, **options)


def test_answers_are_those_of_the_purifier_under_keyed_noise():
    images, found = some_images(3), torch.zeros(3, 4, dtype=torch.int64)
    purifier = smoothed().purifier
    for k in range(4, 10):
        noise = FixedNoise(derive_seed(NOISE.seed, "smoothing", k))
        answers = CLASSIFIER(purifier.purify(images, noise, INDICES)).argmax(1)
        found[torch.arange(3), answers] += 1
    assert torch.equal(smoothed().votes(images, INDICES, range(4, 10)), found)
    assert len(found.unique()) > 2  # the draws differ in their answers


@pytest.mark.parametrize("reversals", [1, 3])
def test_counts_depend_on_no_batch_order_or_pass(reversals):
    images = some_images(3)
    whole = smoothed(reversals=reversals).votes(images, INDICES, range(12))
    assert whole.sum(1).tolist() == [12] * 3
    for rows in (1, 4, 7):
        one = smoothed(reversals=reversals, rows_per_pass=rows)
        assert torch.equal(one.votes(images, INDICES, range(12)), whole)
    one = smoothed(reversals=reversals)
    assert torch.equal(one.votes(images.flip(0), INDICES.flip(0), range(12)).flip(0), whole)
    assert torch.equal(one.votes(images[1:2], INDICES[1:2], range(12)), whole[1:2])
    parts = [one.votes(images, INDICES, draws) for draws in (range(5), range(5, 12))]
    assert torch.equal(sum(parts), whole)


def test_reversals_start_from_the_same_noised_image_and_vote():
    """Three chains down from one x_t*: of each answer it is what two of them or more say."""
    images, purifier, k = some_images(3), smoothed().purifier, 3
    found = torch.zeros(3, 4, dtype=torch.int64)
    for draw in range(8):
        noise = FixedNoise(derive_seed(NOISE.seed, "smoothing", draw))
        votes = torch.zeros(3, 4)
        for r in range(k):
            back = FixedNoise(derive_seed(noise.seed, "reversal", r)) if r else noise
            x = ALPHA_BAR[145] ** 0.5 * (2 * images - 1)
            x = x + (1 - ALPHA_BAR[145]) ** 0.5 * draws(noise.seed, INDICES, 290, x)
            for step in reverse_steps([72, 145], purifier.schedule):
                x = purifier.reverse_step(step, back, INDICES, x)
            logits = CLASSIFIER((x + 1) / 2)
            votes[torch.arange(3), logits.argmax(1)] += 1
            votes += logits.softmax(1) / 100  # of as many votes the likelier one
        found[torch.arange(3), votes.argmax(1)] += 1
    assert torch.equal(smoothed(reversals=k).votes(images, INDICES, range(8)), found)


def test_split_noise_goes_up_by_the_one_and_down_by_the_other():
    x, one, other = some_images(3), FixedNoise(1), FixedNoise(2)
    split = SplitNoise(one, other)
    for noise, want in (
        (split, (one, other)),
        (split.derived("a", 1), (one.derived("a", 1), other.derived("a", 1))),
    ):
        for process, source in zip(("forward", "reverse"), want, strict=True):
            got = noise.normal(INDICES, process, 7, like=x)
            assert torch.equal(got, source.normal(INDICES, process, 7, like=x))


@pytest.mark.parametrize("sampler", [DDPMSampler(clip=False), DDIMSampler(clip=False)])
def test_one_step_predicts_the_clean_image_of_the_noised_one(sampler):
    """By hand: x + sigma z, scaled to a state of the diffusion, one evaluation, x0-hat."""
    images, denoiser = some_images(3), TinyDenoiser()
    purifier = denoised_smoothing(denoiser, sigma=0.25, sampler=sampler)
    t = purifier.t_star
    sigma = purifier.smoothing_sigma
    assert t == min(range(1, 1001), key=lambda t: abs(sigma_by_hand(t) - 0.25)) == 145
    assert sigma == pytest.approx(sigma_by_hand(t), rel=1e-12)
    noised = images + sigma * draws(NOISE.seed, INDICES, 2 * t, images)
    state = ALPHA_BAR[t] ** 0.5 * (2 * noised - 1)
    clean = (state - (1 - ALPHA_BAR[t]) ** 0.5 * denoiser(state, t)) / ALPHA_BAR[t] ** 0.5
    found = purifier.purify(images, NOISE, INDICES)
    torch.testing.assert_close(found, (clean + 1) / 2, rtol=0, atol=1e-12)


def sigma_by_hand(t):
    return math.sqrt((1 - ALPHA_BAR[t]) / ALPHA_BAR[t]) / 2


class Subclass(DiffusionPurifier):
    """May look at the image again on the way."""


def test_only_what_sees_the_image_through_noise_is_a_smoothing():
    denoiser = TinyDenoiser()
    for process in ("stepwise", "one_shot"):
        purifier = DiffusionPurifier(denoiser, t_star=100, num_steps=2, forward_process=process)
        assert purifier.smoothing_sigma == pytest.approx(sigma_by_hand(100), rel=1e-12)
    others = (
        DiffusionPurifier(denoiser, t_star=100, forward_process="none"),
        DiffusionPurifier(denoiser, t_star=100, resize_to=16),
        Subclass(denoiser),
        AveragedPurifier(DiffusionPurifier(denoiser)),
        IdentityPurifier(),
    )
    for other in others:
        assert other.smoothing_sigma is None
        with pytest.raises(InputError, match="smoothing_sigma"):
            smoothed(other)


def test_stepwise_noise_has_the_sigma_that_it_is_certified_with():
    class Whole(TinyDenoiser):
        def forward(self, x_t, t):
            self.seen = x_t if t == 100 else self.seen
            return torch.zeros_like(x_t)

    denoiser = Whole()
    purifier = DiffusionPurifier(denoiser, t_star=100, num_steps=4)
    images = some_images(1, (3, 64, 64))
    purifier.purify(images, NOISE, INDICES[:1])
    noised = (denoiser.seen / ALPHA_BAR[100] ** 0.5 + 1) / 2
    error = (noised - images) / purifier.smoothing_sigma
    assert error.mean().abs() < 4 / math.sqrt(error.numel())
    assert (error.std() - 1).abs() < 4 / math.sqrt(2 * error.numel())


def test_answers_that_are_not_finite_are_none():
    class Overflow(nn.Module):
        def forward(self, images):
            logits = plane(images)
            return logits.where(logits[:, :1] < 0.1, torch.inf)

    images = torch.full((1, 1, 1, 2), 0.5)
    one = SmoothedClassifier(GaussianNoise(sigma=0.25), Overflow(), noise=NOISE)
    votes = one.votes(images, INDICES[:1], range(60))
    assert 0 < votes[0, 0] < votes[0, 1]
    assert votes.sum() < 60


def certify(**other):
    images = torch.full((1, 1, 1, 2), 0.5)
    return smoothed().certify(images, INDICES[:1], **{"n0": 2, "n": 10, "alpha": 0.001} | other)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: GaussianNoise(sigma=0), "sigma"),
        (lambda: denoised_smoothing(TinyDenoiser(), sigma=math.inf), "sigma"),
        (lambda: denoised_smoothing(TinyDenoiser(), sigma=100.0), r"to 78\.\d+ for pixels"),
        (lambda: denoised_smoothing(TinyDenoiser(), sigma=0.001), "schedule"),
        (lambda: certify(n0=0), "n0"),
        (lambda: certify(alpha=2.0), "alpha"),
        (lambda: certify(n=9), "10 or more"),
        (lambda: smoothed(reversals=0), "reversals"),
        (lambda: smoothed(rows_per_pass=1.5), "rows_per_pass"),
    ],
)
def test_wrong_arguments(make, word):
    with pytest.raises(InputError, match=word):
        make()

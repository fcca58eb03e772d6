"""Random defences are attacked by the mean over draws, and no draw that selects judges."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from defences import LinearDefence, Rule
from torch import Tensor

from lit_purify.attacks import AutoAttack
from lit_purify.attacks.external import ExternalModel
from lit_purify.attacks.mean_over_draws import MeanOverDraws, Selection
from lit_purify.defence import Defence
from lit_purify.diffusion import FreshNoise, NoiseConfiguration
from lit_purify.functional import correct, wilson_interval
from lit_purify.modules.protocols import fresh_noise

LINEAR = LinearDefence()
N = 16
OPTIONS: Any = {"draws": 4, "square_queries": 10}


def by_sign(images: Tensor) -> Tensor:
    """The first where the mean pixel is positive, two others never."""
    mean = images.flatten(1).mean(1)
    return torch.stack([mean, -mean, mean - 8, mean - 9], 1)


def toss(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
    """Right or wrong by a coin that knows nothing of the image; the gradient is 0."""
    coin = noise.uniform(indices, like=images[:, :, :1, :1]).sign()
    return 0 * images + coin


@pytest.fixture(scope="module")
def tossed() -> dict[str, tuple[Tensor, float]]:
    """For both versions: images that were found on the coin, and how many AutoAttack counts."""
    images, indices = torch.full((N, 1, 5, 5), 0.5), torch.arange(N)
    found = {}
    for version in ("rand", "rand_upstream"):
        attack = AutoAttack(eps=0.1, version=version, **OPTIONS)  # type: ignore[arg-type]
        defence = Defence(by_sign, Rule(toss), FreshNoise(0, "attack"))
        adversarial = attack(defence, images, 0 * indices, indices)
        counted = attack.findings.get("counted_fooled", torch.zeros(0))
        found[version] = adversarial, counted.sum().item()
    return found


def test_on_a_coin_the_mean_is_reported_and_upstream_counts_unlucky_draws(
    tossed: dict[str, tuple[Tensor, float]],
) -> None:
    images, indices = tossed["rand"][0], torch.arange(N)
    judge = Defence(by_sign, Rule(toss), FreshNoise(0, "test"))
    right = torch.stack([correct(judge(images, indices), 0 * indices) for _ in range(60)])
    low, high = wilson_interval(float(right.sum()), right.numel())
    assert low < 0.5 < high
    assert high - low < 0.07
    low, high = wilson_interval(N - tossed["rand_upstream"][1], N)
    assert high < 0.45  # the robust accuracy that the library would print


@pytest.mark.parametrize(("version", "above"), [("rand", (0, 0.02)), ("rand_upstream", (0.1, 1))])
def test_a_noisy_linear_defence_is_taken_to_its_optimum(
    version: Any, above: tuple[float, float]
) -> None:
    r"""Right with probability :math:`\Phi(s / \sigma |w|)`, known for every image and the best."""
    images, labels, indices = LINEAR.samples((0.21, 0.25, 0.23, 0.22, 0.24, 0.21))
    sigma, eps = 0.4, 0.1
    defence = LINEAR.defence(FreshNoise(0, "attack"), level=sigma)
    found = AutoAttack(eps=eps, version=version, **OPTIONS)(defence, images, labels, indices)
    normal = torch.distributions.Normal(0.0, sigma * LINEAR.slope.double().norm())

    def accuracy(images: Tensor) -> float:
        return normal.cdf(LINEAR.score(images) * (1 - 2 * labels)).mean().item()

    best = accuracy(images + eps * LINEAR.towards(labels))
    assert accuracy(images) - best > 0.3
    assert above[0] <= accuracy(found) - best <= above[1] + 1e-9


def bound(purify: Any) -> ExternalModel:
    defence = Defence(by_sign, Rule(purify), FreshNoise(3, "attack"))
    return ExternalModel(defence.bind(defence.source, [7]))


def test_the_answer_is_the_log_of_the_mean_probability() -> None:
    def noisy(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return images + noise.normal(indices, "forward", 1, like=images)

    images = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    answer = MeanOverDraws(bound(noisy), 4)(images)
    (gradient,) = torch.autograd.grad(answer[:, 0].sum(), images)
    xi = [FreshNoise(3, "attack", passes=k).next_configuration() for k in range(4)]
    x = images.detach().double().requires_grad_()
    probability = torch.stack(
        [by_sign(noisy(x, noise, torch.tensor([7, 7, 7]))).softmax(1) for noise in xi]
    ).mean(0)
    torch.testing.assert_close(answer.double(), probability.log(), rtol=0, atol=1e-6)
    (want,) = torch.autograd.grad(probability[:, 0].log().sum(), x)
    torch.testing.assert_close(gradient.double(), want, rtol=1e-5, atol=1e-8)


def shifted(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
    return images - 0.5 + 0.3 * noise.uniform(indices, like=images[:, :, :1, :1])


def test_the_image_that_is_right_in_the_fewest_draws_is_kept() -> None:
    kept = Selection(bound(shifted), torch.tensor([0]), 16)
    shares = []
    for level, better in ((0.6, True), (0.5, True), (0.55, False), (0.1, True), (0.0, True)):
        assert kept.offer(torch.full((1, 1, 5, 5), level)) is better
        shares.append(kept.share)
    assert 1 > shares[0] > shares[1] == shares[2] > shares[3] == shares[4] == 0
    assert (kept.image == 0).all()  # of two that are never right the less confident


def test_an_image_that_is_no_number_fools_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    image, indices = torch.full((1, 1, 5, 5), 0.5), torch.arange(1)
    parts = iter((torch.full_like(image, torch.nan), image - 0.4))
    monkeypatch.setattr("lit_purify.attacks.autoattack._run_part", lambda *_: next(parts))
    attack = AutoAttack(eps=0.4, attacks=["fab", "square"], **OPTIONS)
    defence = Defence(by_sign, Rule(shifted), FreshNoise(0, "attack"))
    torch.testing.assert_close(attack(defence, image, 0 * indices, indices), image - 0.4)
    assert attack.findings["not_finite"].all()


def test_what_selects_searches_and_judges_are_other_draws() -> None:
    passes: list[list[int]] = []

    def purify(images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        passes.append([xi.seed for xi in getattr(noise, "configurations", [noise])])
        return toss(images, noise, indices)

    source = FreshNoise(5, "attack")
    image, indices = torch.full((1, 1, 5, 5), 0.5), torch.arange(1)
    attack = AutoAttack(eps=0.1, **OPTIONS)
    attack(Defence(by_sign, Rule(purify), source), image, 0 * indices, indices)
    times = Counter(seed for seeds in passes for seed in seeds)
    assert sum(times.values()) > 200 * 4
    # Those that select meet the clean image and what three parts found, and nothing else.
    selecting = [seed for seed, n in times.items() if n > 1]
    assert [times[seed] for seed in selecting] == [4] * 4
    assert all(len(seeds) == 1 for seeds in passes if set(seeds) & set(selecting))
    judging = {fresh_noise(5, k).seed for k in range(1000)}
    assert not judging & set(times)

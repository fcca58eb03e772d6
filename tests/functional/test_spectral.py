"""Spectra from products alone, against matrices whose spectrum is known."""

import math

import numpy as np
import pytest
import torch
from oracles import ALPHA_BAR, GaussianDenoiser, TinyDenoiser, random_unet, some_images
from tiny import Float64Denoiser

from lit_purify.diffusion import DDPMSampler, DiffusionPurifier, FixedNoise
from lit_purify.functional import (
    JacobianOperator,
    density_above,
    density_below,
    frobenius_norm,
    lanczos,
    largest_singular,
    share_above,
    share_below,
    singular_values,
    spectral_density,
)
from lit_purify.types import InputError


def reflection(x, u):
    """The rows mirrored at the plane across a unit vector."""
    return x - 2 * (x @ u).unsqueeze(1) * u


class Known:
    """A matrix with the given singular values: two reflections and a diagonal between them."""

    def __init__(self, values, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.values = values.double()
        left, right = torch.randn(2, len(values), generator=generator, dtype=torch.float64)
        self.left, self.right = left / left.norm(), right / right.norm()

    def push(self, v):
        return reflection(reflection(v, self.right) * self.values, self.left)

    def pull(self, u):
        return reflection(reflection(u, self.left) * self.values, self.right)

    def matrix(self):
        return self.push(torch.eye(len(self.values), dtype=torch.float64)).T


def like_the_papers(n, seed=0):
    """Over 90 % below 0.25, 1.3 % above 1, and something in between."""
    generator = torch.Generator().manual_seed(seed)
    few = round(0.013 * n)
    rest = torch.rand(n - few, generator=generator, dtype=torch.float64) ** 14
    return torch.cat([torch.linspace(1.02, 9, few, dtype=torch.float64), 0.99 * rest])


def signs(count, n, seed):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randint(0, 2, (count, n), generator=generator).double() - 1


def jacobian(purifier, image, rows_per_pass=64):
    """Of a purifier at one image, sample 7."""
    index = torch.tensor([7])
    return JacobianOperator(
        function=lambda x: purifier.purify(x, FixedNoise(0), index.expand(len(x))),
        image=image,
        rows_per_pass=rows_per_pass,
    )


def estimates(rule):
    return density_below(rule, 0.25), density_above(rule, 1), frobenius_norm(rule)


def truths(values):
    return share_below(values, 0.25), share_above(values, 1), float(values.norm())


class TestShares:
    def test_they_are_counted(self):
        values = torch.tensor([0.1, 0.2, 0.3, 1.5])
        assert share_below(values, 0.25) == 0.5
        assert share_above(values, 1) == 0.25

    @pytest.mark.parametrize("error", [-1e-7, 0, 1e-7])
    def test_rounding_at_a_threshold_does_not_count(self, error):
        values = torch.tensor([0.25, 1.0], dtype=torch.float64) * (1 + error)
        assert share_below(values, 0.25) == 0
        assert share_above(values, 1) == 0

    def test_singular_values_are_float64(self):
        values = torch.logspace(0, -9, 40, dtype=torch.float64)
        found = singular_values(Known(values).matrix())
        np.testing.assert_allclose(found, values, rtol=1e-6)
        assert singular_values(torch.eye(3)).dtype == torch.float64


class TestLargest:
    def test_known_values_and_vectors(self):
        known = Known(like_the_papers(400))
        found = largest_singular(known.push, known.pull, signs(1, 400, 0)[0], 6)
        np.testing.assert_allclose(found.values, known.values.sort().values.flip(0)[:6], rtol=1e-9)
        identity = torch.eye(6, dtype=torch.float64)
        for vectors in (found.left, found.right):
            torch.testing.assert_close(vectors @ vectors.T, identity, rtol=0, atol=1e-8)
        scaled = found.values.unsqueeze(1) * found.left
        torch.testing.assert_close(known.push(found.right), scaled, rtol=0, atol=1e-8)
        entry = found.right.abs().argmax(1, keepdim=True)
        assert (found.right.gather(1, entry) > 0).all()

    @pytest.mark.parametrize("network", ["convolutions", "unet"])
    def test_they_are_those_of_the_dense_decomposition(self, network):
        unet = network == "unet"
        denoiser = Float64Denoiser(random_unet(8)) if unet else TinyDenoiser()
        purifier = DiffusionPurifier(denoiser, t_star=60, num_steps=1 if unet else 2)
        image = some_images(1, (3, 8, 8) if unet else (3, 4, 4))[0]
        operator = jacobian(purifier, image, rows_per_pass=192)
        found = largest_singular(operator.push, operator.pull, signs(1, operator.size, 0)[0], 5)
        left, values, right = torch.linalg.svd(operator.dense())
        np.testing.assert_allclose(found.values, values[:5], rtol=1e-6)
        gaps = (values[:-1] - values[1:])[:5] / values[:5]
        for k in range(5):
            if min(gaps[max(0, k - 1)], gaps[k]) > 1e-3:  # otherwise the vectors are not their own
                assert abs(found.right[k] @ right[k]) == pytest.approx(1, abs=1e-6)
                assert abs(found.left[k] @ left[:, k]) == pytest.approx(1, abs=1e-6)

    def test_float32_products(self):
        values = like_the_papers(300)
        known = Known(values)
        found = largest_singular(
            lambda v: known.push(v).float(),
            lambda u: known.pull(u.double()).float(),
            torch.ones(300),
            3,
        )
        np.testing.assert_allclose(found.values, values.sort().values.flip(0)[:3], rtol=1e-5)

    def test_the_identity_and_nothing(self):
        one = largest_singular(lambda v: v, lambda u: u, torch.ones(9), 3)
        np.testing.assert_allclose(one.values, np.ones(3), rtol=1e-6)
        none = largest_singular(lambda v: 0 * v, lambda u: 0 * u, torch.ones(9), 3)
        assert none.values.tolist() == [0, 0, 0]
        assert (none.left == 0).all()

    def test_the_start_decides_nothing_and_no_global_generator(self):
        known = Known(like_the_papers(300))
        np.random.seed(0)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        one, two = (
            largest_singular(known.push, known.pull, signs(1, 300, seed)[0], 3) for seed in (0, 1)
        )
        np.testing.assert_allclose(one.values, two.values, rtol=1e-9)
        torch.testing.assert_close(one.right, two.right, rtol=0, atol=1e-6)
        again = largest_singular(known.push, known.pull, signs(1, 300, 0)[0], 3)
        assert torch.equal(one.right, again.right)
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002

    @pytest.mark.parametrize("k", [0, 9])
    def test_how_many(self, k):
        with pytest.raises(InputError, match="expected 1 to 8"):
            largest_singular(lambda v: v, lambda u: u, torch.ones(9), k)


def test_the_jacobian_of_purified_gaussian_data():
    r"""DDPM with the exact denoiser of N(mu, Sigma): :math:`J = \bar\alpha \Sigma M^{-1}`."""
    variances = torch.tensor([0.02, 0.1, 0.4, 0.9], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    axes = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    purifier = DiffusionPurifier(
        GaussianDenoiser(torch.zeros(4).double(), axes @ torch.diag(variances) @ axes.T),
        t_star=100,
        num_steps=7,
        sampler=DDPMSampler(clip=False),
    )
    operator = jacobian(purifier, some_images(1, (1, 2, 2))[0])
    signal = ALPHA_BAR[100] * variances
    want = (signal / (signal + 1 - ALPHA_BAR[100])).flip(0)
    np.testing.assert_allclose(singular_values(operator.dense()), want, rtol=1e-10)
    top = largest_singular(operator.push, operator.pull, signs(1, 4, 0)[0], 2)
    np.testing.assert_allclose(top.values, want[:2], rtol=1e-9)
    overlap = (top.right @ axes.flip(1)[:, :2]).abs()
    torch.testing.assert_close(overlap, torch.eye(2).double(), rtol=0, atol=1e-7)
    rule = lanczos(operator.push, operator.pull, signs(8, 4, 0), 4)
    below = density_below(rule, 0.25)
    assert below.low <= share_below(want, 0.25) <= below.high


class TestQuadrature:
    def test_lanczos_is_exact_with_a_step_for_every_value(self):
        # Four different values: the measure of a probe has four nodes, and its masses are known.
        values = torch.tensor([0.1, 0.3, 0.9, 2.0], dtype=torch.float64).repeat(5)
        known = Known(values)
        probes = signs(3, 20, 0)
        rule = lanczos(known.push, known.pull, probes, 4)
        nodes, shares = spectral_density(rule)
        assert nodes.shape == shares.shape == (3, 4)
        np.testing.assert_allclose(nodes, [[0.1, 0.3, 0.9, 2.0]] * 3, rtol=1e-9)
        mass = reflection(probes, known.right).square() / 20
        want = torch.stack([mass[:, values == v].sum(1) for v in values[:4]], 1)
        torch.testing.assert_close(shares, want, rtol=0, atol=1e-10)
        # Going on, rounding alone is found: it must weigh nothing.
        more = lanczos(known.push, known.pull, probes, 100)
        assert more.diagonal.shape == (3, 20)
        for threshold, columns in ((0.25, 1), (0.5, 2), (1.0, 3)):
            got = density_below(more, threshold).value
            assert got == pytest.approx(float(want[:, :columns].sum(1).mean()), abs=1e-9)

    def test_moments_up_to_twice_the_steps(self):
        known = Known(like_the_papers(200))
        probe = signs(1, 200, 0)
        nodes, shares = spectral_density(lanczos(known.push, known.pull, probe, 5))
        mass = reflection(probe, known.right)[0].square() / 200
        for power in range(10):  # of J^T J
            want = float((mass * known.values ** (2 * power)).sum())
            assert float((shares * nodes ** (2 * power)).sum()) == pytest.approx(want, rel=1e-9)

    def test_it_bounds_what_a_probe_measures(self):
        """Chebyshev, Markov and Stieltjes: for every probe, number of steps and threshold."""
        known = Known(like_the_papers(300))
        probes = signs(4, 300, 1)
        mass = reflection(probes, known.right).square() / 300
        widths = {}
        for steps in (2, 5, 10, 20, 40):
            for probe, masses in zip(probes, mass, strict=True):
                # The same probe twice has no spread: the ends are the bounds themselves.
                rule = lanczos(known.push, known.pull, probe.repeat(2, 1), steps)
                for threshold in (0.01, 0.25, 0.6, 1.0, 3.0, 20.0):
                    got = density_below(rule, threshold)
                    want = float(masses[known.values < threshold].sum())
                    assert got.low - 1e-9 <= want <= got.high + 1e-9
                    widths[steps, threshold] = got.high - got.low
        assert widths[40, 0.25] < 0.1 * widths[5, 0.25]
        assert widths[40, 1.0] < 0.1 * widths[5, 1.0]

    def test_the_truth_is_covered_at_the_size_of_cifar(self):
        known = Known(like_the_papers(3072))
        rule = lanczos(known.push, known.pull, signs(8, 3072, 0), 60)
        below, above, norm = found = estimates(rule)
        shares = truths(known.values)
        assert all(one.low <= truth <= one.high for one, truth in zip(found, shares, strict=True))
        # and says something
        assert below.high - below.low < 0.03
        assert above.high - above.low < 0.002
        assert norm.high - norm.low < 0.02 * norm.value
        assert below.value == pytest.approx(shares[0], abs=0.005)
        assert above.value == pytest.approx(shares[1], abs=0.0005)

    def test_the_intervals_cover_as_often_as_they_say(self):
        known = Known(like_the_papers(256))
        hits = torch.zeros(3)
        for seed in range(40):
            rule = lanczos(known.push, known.pull, signs(6, 256, 100 + seed), 24)
            pairs = zip(estimates(rule), truths(known.values), strict=True)
            hits += torch.tensor([found.low <= truth <= found.high for found, truth in pairs])
        # Of 40 at 95 %, fewer than 34 have a chance of 0.3 %.
        assert (hits >= 34).all()

    def test_the_estimates_are_unbiased(self):
        known = Known(like_the_papers(80))
        rule = lanczos(known.push, known.pull, signs(300, 80, 7), 80)
        for found, truth in zip(estimates(rule), truths(known.values), strict=True):
            # The rule is exact, so that 1.97 standard errors are all of the interval.
            assert abs(found.value - truth) < 3.5 / 1.97 * min(
                found.value - found.low, found.high - found.value
            )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("factor", [0.2, 0.25, 1.0, 3.0])
    def test_scaling_has_one_node(self, factor, dtype):
        def scale(x):
            return (factor * x).to(dtype)

        rule = lanczos(scale, scale, signs(4, 50, 0), 10)
        assert rule.steps.tolist() == [1] * 4
        below, above = density_below(rule, 0.25), density_above(rule, 1)
        assert tuple(below) == ((1, 1, 1) if factor < 0.25 else (0, 0, 0))
        assert tuple(above) == ((1, 1, 1) if factor > 1 else (0, 0, 0))
        assert frobenius_norm(rule).value == pytest.approx(factor * math.sqrt(50), rel=1e-6)

    def test_nothing_comes_through_zero(self):
        rule = lanczos(lambda v: 0 * v, lambda u: 0 * u, signs(2, 9, 0), 4)
        assert density_below(rule, 0.25).value == 1
        assert frobenius_norm(rule) == (0, 0, 0)

    def test_a_single_probe_has_no_interval(self):
        known = Known(like_the_papers(60))
        rule = lanczos(known.push, known.pull, signs(1, 60, 0), 5)
        assert [one[1:] for one in estimates(rule)] == [(0, 1), (0, 1), (0, math.inf)]

    def test_probes_do_not_disturb_each_other(self):
        known = Known(like_the_papers(100))
        probes = signs(3, 100, 0)
        together = lanczos(known.push, known.pull, probes, 12)
        alone = lanczos(known.push, known.pull, probes[1:2], 12)
        torch.testing.assert_close(together.diagonal[1:2], alone.diagonal, rtol=0, atol=1e-10)
        torch.testing.assert_close(together.beside[1:2], alone.beside, rtol=0, atol=1e-10)

    def test_arguments(self):
        for probes, steps in ((torch.ones(1, 3), 0), (torch.ones(3), 1)):
            with pytest.raises(InputError, match=f"{steps} steps"):
                lanczos(lambda v: v, lambda u: u, probes, steps)

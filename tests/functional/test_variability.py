"""Variances, directions and centroids against what holds everything at once, and closed forms."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_purify.functional import (
    Variability,
    add_directions,
    add_draw,
    centroid_distance,
    centroid_distances,
    mean_cosine,
    variability,
    variance_components,
)

B, M, N, SHAPE = 3, 5, 7, (2, 4, 3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def some_draws() -> tuple[Tensor, Tensor]:
    """Inputs (B, M, ...) and outputs (N, B, M, ...) far from zero, with an interaction."""
    inputs = 0.5 + 0.01 * normal(B, M, *SHAPE, seed=1)
    noise, both = normal(N, B, 1, *SHAPE, seed=2), normal(N, B, M, *SHAPE, seed=3)
    return inputs, 100 + inputs + 0.3 * noise + 2 * noise * (inputs - 0.5) + 0.05 * both


def by_hand(inputs: Tensor, outputs: Tensor) -> dict[str, np.ndarray]:
    """Every figure from all purified images at once, with every pair formed."""
    x = inputs.numpy().reshape(len(inputs), inputs.shape[1], -1)
    y = outputs.numpy().reshape(len(outputs), *x.shape).transpose(1, 2, 0, 3)  # B, M, N, pixels
    images, m, n, _ = y.shape
    per_input, per_draw = y.mean(2, keepdims=True), y.mean(1, keepdims=True)
    overall = y.mean((1, 2), keepdims=True)
    rest = y - per_input - per_draw + overall
    found = {
        "total": y.var((1, 2)).mean(1),
        "input": y.var(1).mean((1, 2)),
        "internal": y.mean(1).var(1).mean(1),
        "internal_unbiased": y.mean(1).var(1, ddof=1).mean(1)
        - (rest**2).sum((1, 2)).mean(1) / ((m - 1) * (n - 1) * m),
        "fixed_noise": np.zeros(images),
        "fixed_input": np.zeros(images),
        "l2_inputs": np.linalg.norm(x - x.mean(1, keepdims=True), axis=2).mean(1),
        "l2_fixed_noise": np.linalg.norm(y - per_draw, axis=3).mean((1, 2)),
        "l2_fixed_input": np.linalg.norm(y - per_input, axis=3).mean((1, 2)),
        "l2_both": np.linalg.norm(y - overall, axis=3).mean((1, 2)),
    }
    found["snr"] = found["input"] / found["internal"]
    d = y - x[:, :, None]
    for b in range(images):
        for name, groups in {"fixed_noise": d[b].transpose(1, 0, 2), "fixed_input": d[b]}.items():
            found[name][b] = np.mean(
                [
                    u @ v / math.sqrt((u @ u) * (v @ v))
                    for group in groups
                    for u, v in itertools.combinations(group, 2)
                ]
            )
    return found


def named(found: Variability) -> dict[str, Tensor]:
    centroid = {f"l2_{name}": value for name, value in found.centroid._asdict().items()}
    return {**found.variance._asdict(), **found.direction._asdict(), **centroid}


def test_streaming_equals_holding_everything():
    inputs, outputs = some_draws()
    found, want = named(variability(inputs, list(outputs))), by_hand(inputs, outputs)
    assert found.keys() == want.keys()
    for name, values in want.items():
        assert found[name].dtype == torch.float64
        assert found[name].numpy() == pytest.approx(values, rel=1e-10, abs=1e-13), name


def test_law_of_total_variance_where_the_mean_is_10_000_times_the_spread():
    inputs, outputs = some_draws()
    found = variability(inputs, list(outputs - 100 + 1e4)).variance
    total = (outputs - 100).numpy().var((0, 2)).reshape(B, -1).mean(1)
    assert found.total.numpy() == pytest.approx(total, rel=1e-8)
    assert (found.input + found.internal).numpy() == pytest.approx(found.total.numpy(), rel=1e-15)


def test_neither_other_images_nor_the_order_matter():
    inputs, outputs = some_draws()
    whole = named(variability(inputs, list(outputs)))
    turned = named(variability(inputs.flip(1), list(outputs.flip(0, 2))))
    alone = [named(variability(inputs[[b]], [y[[b]] for y in outputs])) for b in range(B)]
    for name, value in whole.items():
        assert turned[name].numpy() == pytest.approx(value.numpy(), rel=1e-12, abs=1e-14), name
        assert [one[name].item() for one in alone] == pytest.approx(value.numpy(), rel=1e-13), name


def test_identity():
    """No noise, no direction, and the inputs' own centroids; of a constant not even a ratio."""
    inputs, _ = some_draws()
    found = variability(inputs, [inputs] * 4)
    x = inputs.numpy().reshape(B, M, -1)
    assert found.variance.input.numpy() == pytest.approx(x.var(1).mean(1), rel=1e-12)
    assert torch.equal(found.variance.internal, torch.zeros(B, dtype=torch.float64))
    assert torch.equal(found.variance.internal_unbiased, torch.zeros(B, dtype=torch.float64))
    assert found.variance.snr.tolist() == [math.inf] * B
    assert found.direction.fixed_noise.isnan().all()
    assert found.direction.fixed_input.isnan().all()
    assert torch.equal(found.centroid.fixed_noise, found.centroid.inputs)
    assert found.centroid.both.numpy() == pytest.approx(found.centroid.inputs.numpy(), rel=1e-13)
    assert found.centroid.fixed_input.numpy() == pytest.approx(np.zeros(B), abs=1e-15)
    found = variability(inputs, [torch.full_like(inputs, 0.3)] * 3)
    assert found.variance.total.tolist() == [0] * B
    assert found.variance.snr.isnan().all()
    assert found.centroid.both.tolist() == [0] * B


def test_additive_noise_is_internal_variance():
    """y = x + b(xi): Var_xi is that of b whatever the inputs, so the correction only counts N - 1.

    Subtracting E_xi[Var_x] / (M - 1), as for inputs of each draw's own, would be wrong here by
    more than the whole value.
    """
    inputs = normal(B, M, *SHAPE, seed=1)
    noise = 0.1 * normal(N, B, 1, *SHAPE, seed=2)
    found = variability(inputs, list(inputs + noise)).variance
    b = noise.squeeze(2).flatten(2).numpy()
    assert found.internal.numpy() == pytest.approx(b.var(0).mean(1), rel=1e-12)
    assert found.internal_unbiased.numpy() == pytest.approx(b.var(0, ddof=1).mean(1), rel=1e-12)
    x = inputs.flatten(2).numpy()
    assert found.snr.numpy() == pytest.approx(x.var(1).mean(1) / b.var(0).mean(1), rel=1e-12)


def test_the_corrected_internal_variance_is_unbiased():
    """f = a x + b xi + c x xi, x and xi standard normal: Var_xi[E_x f] = b^2, however few draws."""
    a, b, c = 1.0, 0.5, 2.0
    repeats, m, n = 40_000, 2, 3
    x, xi = normal(repeats, m, 1, seed=4), normal(n, repeats, 1, 1, seed=5)
    found = variability(x, list(a * x + b * xi + c * x * xi)).variance
    error = found.internal_unbiased.std().item() / math.sqrt(repeats)
    assert abs(found.internal_unbiased.mean().item() - b**2) < 4 * error
    # (1 - 1/N) (b^2 + c^2 / M) is what the population estimator has in its place.
    error = found.internal.std().item() / math.sqrt(repeats)
    assert abs(found.internal.mean().item() - 2 / 3 * (b**2 + c**2 / 2)) < 4 * error
    assert b**2 < 0.2 * 2 / 3 * (b**2 + c**2 / 2)


def test_known_directions():
    """At one input every noise turns the direction by 90 degrees; inputs do not matter."""
    inputs = normal(1, 3, 4)
    found = variability(inputs, [inputs + 0.1 * turn for turn in torch.eye(4).double()])
    assert found.direction.fixed_noise.item() == pytest.approx(1, abs=1e-14)
    assert found.direction.fixed_input.item() == pytest.approx(0, abs=1e-14)
    both = [inputs + 0.1, inputs - 0.1]
    assert variability(inputs, both).direction.fixed_input.item() == pytest.approx(-1, abs=1e-14)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_mean_cosine_over_all_pairs(scale):
    vectors = normal(2, 6, 3)
    units = vectors / vectors.norm(dim=2, keepdim=True)
    pairs = units @ units.mT
    want = (pairs.sum((1, 2)) - 6) / 30
    torch.testing.assert_close(mean_cosine(scale * vectors), want, rtol=0, atol=1e-14)


def test_one_direction_that_is_missing_leaves_its_image_without_a_figure():
    inputs, outputs = some_draws()
    outputs[2, 1, 3] = inputs[1, 3]
    found = variability(inputs, list(outputs)).direction
    assert found.fixed_noise.isnan().tolist() == [False, True, False]
    assert found.fixed_input.isnan().tolist() == [False, True, False]


def test_float32_images_are_measured_in_float64():
    inputs, outputs = some_draws()
    inputs, outputs = inputs.float(), outputs.float()
    found = named(variability(inputs, list(outputs)))
    want = named(variability(inputs.double(), list(outputs.double())))
    for name, value in want.items():
        assert torch.equal(found[name], value), name


def test_a_single_draw_knows_no_internal_variance():
    inputs, outputs = some_draws()
    found = variability(inputs, [outputs[0]])
    assert found.variance.internal.tolist() == [0] * B
    assert found.variance.internal_unbiased.isnan().all()
    assert found.direction.fixed_input.isnan().all()
    assert found.direction.fixed_noise.isfinite().all()


def test_distances_to_a_square():
    corners = torch.tensor([[[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]])
    assert centroid_distance(corners).item() == pytest.approx(math.sqrt(2), rel=1e-15)
    far = centroid_distance(corners, torch.tensor([[1.0, 1.0]])).item()
    assert far == pytest.approx((2 + 2 + 2 * math.sqrt(2)) / 4, rel=1e-15)
    assert centroid_distance(corners, corners + 3.0).item() == pytest.approx(math.sqrt(18))


INPUTS, OUTPUTS = some_draws()
REFUSED = {
    "once": lambda: variability(INPUTS, iter(OUTPUTS)),
    "got none": lambda: variability(INPUTS, []),
    "more draws": lambda: centroid_distances(INPUTS, [], INPUTS),
    "more directions": lambda: variability(INPUTS[:, :1], [OUTPUTS[0][:, :1]]),
    "more inputs": lambda: add_draw(None, OUTPUTS[0][:, :1]),
    "purified inputs": lambda: add_directions(None, INPUTS, OUTPUTS[0][:, :3]),
    "one shape": lambda: add_draw(add_draw(None, OUTPUTS[0]), OUTPUTS[0][:2]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_measured_is_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_gradients_pass():
    x = normal(1, 3, 4).requires_grad_()
    components = variance_components(add_draw(add_draw(None, x), 2 * x))
    (gradient,) = torch.autograd.grad(components.internal.sum(), x)
    # internal = mean over pixels of (mean over inputs of x)^2 / 4
    want = (x.detach().mean(1, keepdim=True) / (2 * 3 * 4)).expand_as(x)
    torch.testing.assert_close(gradient, want, rtol=0, atol=1e-15)


def numbers_in_tensors() -> int:
    """In all that somebody still knows."""
    return sum(thing.numel() for thing in gc.get_objects() if type(thing) is Tensor)


def peak(inputs: Tensor, count: int) -> int:
    """The most of them at the end of a round of so many fresh draws."""
    held = []

    class Draws:
        def __iter__(self) -> Iterator[Tensor]:
            for n in range(count):
                yield normal(2, 4, 64, seed=n)
            held.append(numbers_in_tensors())

    variability(inputs, Draws())
    assert len(held) == 2  # rounds
    return max(held)


def test_memory_does_not_grow_with_the_draws():
    inputs = normal(2, 4, 64, seed=99)
    gc.collect()
    before = numbers_in_tensors()
    assert peak(inputs, 3) == peak(inputs, 30)
    assert 2 * inputs.numel() < peak(inputs, 3) - before < 6 * inputs.numel()

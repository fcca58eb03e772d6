"""Bilateral filters with weights of every pixel's own."""

import pytest
import torch
import torch.nn.functional as F
from oracles import some_images

from lit_purify.functional import bilateral

INF = float("inf")


def uniform_weights(images, k):
    return torch.zeros(len(images), k * k, *images.shape[-2:], dtype=images.dtype)


@pytest.mark.parametrize("k", [3, 5])
def test_equal_weights_are_a_box_blur(k):
    images = some_images(3)
    expected = F.avg_pool2d(F.pad(images, (k // 2,) * 4, mode="reflect"), k, stride=1)
    torch.testing.assert_close(bilateral(images, uniform_weights(images, k), INF), expected)


def test_logits_of_distance_are_the_bilateral_filter():
    """Of Tomasi & Manduchi, pixel by pixel."""
    images, space, colour = some_images(1), 0.9, 0.2
    y, x = torch.meshgrid(torch.arange(-1, 2), torch.arange(-1, 2), indexing="ij")
    logits = -(x**2 + y**2).double().flatten() / (2 * space**2)
    logits = logits.view(1, 9, 1, 1).expand(1, 9, *images.shape[-2:])
    found = bilateral(images, logits, colour)[0]
    image = images[0]
    for row, column in ((3, 4), (1, 6)):
        total, weights = torch.zeros(3, dtype=image.dtype), 0.0
        for dy, dx in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
            other = image[:, row + dy, column + dx]
            apart = (other - image[:, row, column]).square().sum()
            weight = torch.exp(
                torch.tensor(-(dx**2 + dy**2) / (2 * space**2)) - apart / (2 * colour**2)
            )
            total, weights = total + weight * other, weights + weight
        torch.testing.assert_close(found[:, row, column], total / weights)


def test_a_weight_on_one_neighbour_moves_the_image():
    images = some_images(2)
    logits = uniform_weights(images, 3)
    logits[:, 5] = 1e3  # to the right
    moved = bilateral(images, logits, INF)
    torch.testing.assert_close(moved[..., :-1], images[..., 1:])


def test_one_colour_stays():
    images = torch.rand(2, 3, 1, 1, dtype=torch.float64).expand(2, 3, 6, 7)
    logits = torch.randn(2, 25, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(bilateral(images, logits, 0.1), images)


def test_narrow_colours_leave_an_image():
    images = some_images(2)
    torch.testing.assert_close(bilateral(images, uniform_weights(images, 3), 1e-6), images)


@pytest.mark.parametrize("shape", [(1, 8, 4, 5), (1, 4, 4, 5), (1, 81, 4, 5)])
def test_senseless_logits_are_refused(shape):
    with pytest.raises(ValueError, match="odd k x k"):
        bilateral(torch.zeros(1, 3, 4, 5), torch.zeros(shape), INF)


def test_gradients():
    images = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(1, 9, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: bilateral(*inputs, 0.3), (images, logits))

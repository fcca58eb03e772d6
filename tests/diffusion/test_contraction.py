"""A purifier that is nothing but its compression rate."""

import pytest
import torch
from oracles import some_images

from lit_purify.diffusion import FixedNoise
from lit_purify.diffusion.contraction import Contraction
from lit_purify.functional import compression_rate


def test_it_has_the_rate_of_every_image_in_any_order():
    anchors, clean, images = (some_images(3, seed=seed) for seed in range(3))
    rates, samples = torch.tensor([0.2, 0.5, 1.0]), torch.tensor([4, 9, 2])
    purifier = Contraction(anchors, clean, rates, samples)
    assert torch.equal(purifier.purify(clean, FixedNoise(0), samples), anchors)
    rows = torch.tensor([2, 0])
    purified = purifier.purify(images[rows], FixedNoise(0), samples[rows])
    found = compression_rate(purified, anchors[rows], images[rows], clean[rows])
    assert found.tolist() == pytest.approx([1.0, 0.2], rel=1e-5)
    with pytest.raises(KeyError, match="7"):
        purifier.purify(images[:1], FixedNoise(0), torch.tensor([7]))

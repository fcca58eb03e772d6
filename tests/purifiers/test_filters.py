"""Filters against Pillow, torchvision, closed forms and differences."""

import io

import numpy as np
import pytest
import scipy.fft
import tiny
import torch
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import FixedNoise
from lit_purify.modules import PurifiedClassifier
from lit_purify.modules.preflight import preflight
from lit_purify.purifiers import JPEG, BitDepth, Blur, TotalVariation
from lit_purify.purifiers.jpeg import _steps
from lit_purify.report.flags import flags
from lit_purify.types import InputError

FILTERS = (Blur(sigma=0.8), BitDepth(bits=3), TotalVariation(weight=0.1), JPEG(quality=60))


def purified(purifier, images):
    return purifier.purify(images, FixedNoise(0), torch.arange(len(images)))


@pytest.fixture(scope="module")
def photographs():
    data = CIFAR10DataModule(limit=3)
    data.setup("test")
    return torch.stack([data.test_set[i]["image"] for i in range(3)])


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.2])
def test_blur_is_that_of_torchvision(photographs, sigma):
    size = 2 * Blur(sigma=sigma).radius + 1
    want = gaussian_blur(photographs, [size, size], [sigma, sigma])
    torch.testing.assert_close(purified(Blur(sigma=sigma), photographs), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
def test_jpeg_is_that_of_pillow(photographs, quality):
    """Pillow's transform is in whole numbers, which moves a coefficient here and there."""
    images = photographs[:, :, :29]
    got = (255 * purified(JPEG(quality=quality), images)).round()
    for image, found in zip(images, got, strict=True):
        pixels = (255 * image).round()
        want, tables = pillow(pixels, quality)
        assert torch.equal(_steps(quality)[0].flatten(), torch.tensor(tables[0]))
        assert torch.equal(_steps(quality)[1].flatten(), torch.tensor(tables[1]))
        error = (found - want).abs()
        assert error.median() <= 1
        assert error.mean() < 0.4 * (pixels - want).abs().mean()


def pillow(pixels, quality):
    """Pixels that went through a file, and its tables."""
    file = io.BytesIO()
    Image.fromarray(pixels.to(torch.uint8).movedim(0, -1).numpy()).save(
        file, "JPEG", quality=quality, subsampling=0
    )
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image)).movedim(-1, 0).float(), image.quantization


def test_jpeg_rounds_the_coefficients_of_the_cosine_transform():
    """Of grey images, whose colours stay as they are, against SciPy's transform."""
    grey = torch.rand(1, 1, 16, 8, generator=torch.Generator().manual_seed(1)).double()
    grey = (255 * grey).round()
    steps = _steps(40)[0].numpy()
    want = grey.clone()
    for rows in (slice(0, 8), slice(8, 16)):
        coefficients = scipy.fft.dctn(grey[0, 0, rows].numpy() - 128, norm="ortho")
        restored = scipy.fft.idctn((coefficients / steps).round() * steps, norm="ortho")
        want[0, 0, rows] = torch.from_numpy(restored.round() + 128).clamp(0, 255)
    found = purified(JPEG(quality=40), (grey / 255).expand(1, 3, 16, 8))
    torch.testing.assert_close(255 * found, want.expand(1, 3, 16, 8), rtol=0, atol=1e-9)


def test_bit_depth_has_so_many_levels(photographs):
    found = purified(BitDepth(bits=2), photographs)
    assert torch.equal((3 * found).round() / 3, found)
    assert len(found.unique()) == 4
    assert (found - photographs).abs().max() <= 1 / 6 + 1e-6
    assert purified(BitDepth(bits=8), photographs).sub(photographs).abs().max() < 1e-6


@pytest.mark.parametrize("along", [-1, -2])
def test_total_variation_draws_two_levels_together(along):
    """The minimiser of a step of n and m pixels moves them by weight / n and weight / m."""
    line = torch.cat([torch.full((3,), 0.2), torch.full((5,), 0.9)]).double()
    image = line.expand(1, 1, 4, 8)
    moved = torch.cat([torch.full((3,), 0.06 / 3), torch.full((5,), -0.06 / 5)]).double()
    want = image + moved
    if along == -2:
        image, want = image.mT, want.mT
    got = purified(TotalVariation(weight=0.06, iterations=2000), image)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


def test_total_variation_keeps_the_mean_and_what_is_constant(photographs):
    found = purified(TotalVariation(weight=0.2), photographs)
    torch.testing.assert_close(found.mean((2, 3)), photographs.mean((2, 3)), rtol=0, atol=1e-5)
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert torch.equal(purified(TotalVariation(), flat), flat)
    vast = purified(TotalVariation(weight=50.0, iterations=3000), photographs[:1, :, :8, :8])
    assert vast.std((2, 3)).max() < 0.01


@pytest.mark.parametrize("purifier", [FILTERS[0], FILTERS[2]], ids=lambda p: type(p).__name__)
def test_exact_gradients_are_those_of_differences(purifier):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(1, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert purifier.approximate_gradient == ""
    assert torch.autograd.gradcheck(lambda x: purified(purifier, x), (x,))


@pytest.mark.parametrize("purifier", [FILTERS[1], FILTERS[3]], ids=lambda p: type(p).__name__)
def test_rounding_passes_the_gradient_on(purifier, photographs):
    x = (0.1 + 0.8 * photographs).requires_grad_()
    cotangent = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(purified(purifier, x), x, cotangent)
    # Without the roundings the transform is undone: the identity.
    torch.testing.assert_close(gradient, cotangent, rtol=0, atol=1e-4)


@pytest.mark.parametrize("purifier", FILTERS, ids=lambda p: type(p).__name__)
def test_the_preflight_is_content_and_an_approximation_is_named(purifier, photographs):
    module = PurifiedClassifier(purifier, tiny.classifier(), protocols=["fixed"])
    batch = {"image": photographs[:2], "label": torch.tensor([0, 1]), "index": torch.arange(2)}
    found = preflight(module.defence, module.noise, batch, attacked=True)
    assert found["zero_gradient"] == 0.0
    said = flags({}, module.settings(), found)
    approximate = bool(purifier.approximate_gradient)
    assert ["purifier is approximate" in flag for flag in said] == [True] * approximate
    # Of the classifier alone nothing of it is attacked; of a surrogate its gradient is followed.
    alone = PurifiedClassifier(purifier, tiny.classifier(), protocols=["base"])
    assert flags({}, alone.settings()) == []
    replaced = PurifiedClassifier(
        tiny.IdentityPurifier(), tiny.classifier(), protocols=["fixed"], surrogate=purifier
    )
    said = [flag for flag in flags({}, replaced.settings()) if "is approximate" in flag]
    assert ["surrogate is" in flag for flag in said] == [True] * approximate


def test_a_sample_does_not_depend_on_its_batch(photographs):
    for purifier in FILTERS:
        whole, alone = purified(purifier, photographs), purified(purifier, photographs[1:2])
        torch.testing.assert_close(alone, whole[1:2], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Blur(sigma=0), "sigma"),
        (lambda: Blur(sigma=5.0).check_shape((3, 8, 8)), "sigma"),
        (lambda: BitDepth(bits=0), "bits"),
        (lambda: TotalVariation(weight=-1), "weight"),
        (lambda: TotalVariation(iterations=0), "iterations"),
        (lambda: JPEG(quality=0), "quality"),
        (lambda: JPEG().check_shape((1, 8, 8)), "colours"),
    ],
)
def test_wrong_arguments(make, word):
    with pytest.raises(InputError, match=word):
        make()

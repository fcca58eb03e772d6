"""A user's own module as a classifier."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.wrap import from_module
from lit_purify.types import InputError


def _net(classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, classes))


def test_contract():
    net = _net()
    classifier = from_module(net, 5, (3, 4, 4), source="mine", file=Path("w.pt"))
    assert isinstance(classifier, Classifier)
    assert (classifier.num_classes, classifier.image_shape) == (5, (3, 4, 4))
    assert (classifier.source, classifier.file) == ("mine", Path("w.pt"))
    assert not any(module.training for module in classifier.modules())
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    images = torch.full((2, 3, 4, 4), 0.5)
    assert torch.equal(classifier(images), net(images))
    assert from_module(net, 5).source == "Sequential"


def test_gradient_reaches_the_image():
    images = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    linear = nn.Linear(48, 2)
    from_module(nn.Sequential(nn.Flatten(), linear), 2)(images)[0, 1].backward()
    assert torch.equal(images.grad.flatten(), linear.weight[1])


class Pair(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        return images, None


@pytest.mark.parametrize(
    ("module", "num_classes", "side", "message"),
    [
        (_net(), 5, 5, r"\(2, 3, 5, 5\).*expected \(B, 3, 4, 4\)"),
        (_net(), 7, 4, r"returned \(2, 5\).*\(2, 7\)"),
        (Pair(), 7, 4, "returned tuple"),
    ],
)
def test_images_and_logits_of_other_shapes_are_refused(module, num_classes, side, message):
    with pytest.raises(InputError, match=message):
        from_module(module, num_classes, (3, 4, 4))(torch.zeros(2, 3, side, side))


@pytest.mark.parametrize("num_classes", [1, 5.0, "5", True])
def test_what_is_no_number_of_classes_is_refused(num_classes):
    with pytest.raises(InputError, match="num_classes is"):
        from_module(_net(), num_classes)


@pytest.mark.parametrize("module", [nn.Flatten, lambda images: images.flatten(1)])
def test_what_is_no_module_is_refused(module):
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        from_module(module, 5)


def test_a_shape_may_be_a_list():
    assert from_module(_net(), 5, [3, 4, 4])(torch.zeros(2, 3, 4, 4)).shape == (2, 5)

"""Data of other images, classes or labels than the classifier's are refused."""

import pytest
import torch
from torch import nn

from lit_purify.classifiers import from_module
from lit_purify.types import InputError

NAMES = ("cat", "crane", "dog", "crane")


def _check(class_names=(), labels=None, num_classes=4, image_shape=(1, 2, 2), own=NAMES):
    classifier = from_module(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), 4, (1, 2, 2))
    classifier.class_names = own
    labels = None if labels is None else torch.tensor(labels)
    classifier.check_data(
        num_classes=num_classes, image_shape=image_shape, class_names=class_names, labels=labels
    )


@pytest.mark.parametrize(
    "names", [(), NAMES, ("Cat", "heron", "Dog", "crane"), ("x", "y", "dog", "z")]
)
def test_names_that_fit(names):
    _check(names, [0, 3])
    _check(("a", "b", "c", "d"), own=())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": ("dog", "crane", "cat", "crane")}, "'dog'.*class 2"),
        ({"class_names": ("0", "1", "2", "3")}, "'0'.*does not know"),
        ({"labels": [0, 4]}, r"0 \.\. 4.*0 \.\. 3"),
        ({"labels": [-1, 2]}, r"-1 \.\. 2"),
        ({"num_classes": 5}, "5 classes"),
        ({"image_shape": (3, 2, 2)}, r"\(3, 2, 2\)"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        _check(**arguments)

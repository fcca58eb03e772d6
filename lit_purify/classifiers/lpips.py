"""LPIPS as a distance of features."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_purify.classifiers.packaged import packaged_weights
from lit_purify.types import InputError
from lit_purify.weights.files import load_state_dict

_TAPS = (1, 4, 7, 9, 11)
"""Of AlexNet's layers, those after which LPIPS compares."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of images in [-1, 1], as LPIPS prepares them for AlexNet."""


class LPIPSFeatures(nn.Module):
    r"""Features whose squared l2 distance is LPIPS, version 0.1, of AlexNet (Zhang et al., 2018).

    LPIPS compares the activations of five layers l, at length 1 in every place, by the trained
    weights :math:`w_l \ge 0` of their channels (eq. 1 there),

    .. math:: d(x, x')^2 = \sum_l \frac{1}{H_l W_l} \sum_{h, w}
       \| \sqrt{w_l} \odot (\hat y^l_{hw} - \hat y'^l_{hw}) \|_2^2,

    so that :math:`\hat y` times :math:`\sqrt{w_l / (H_l W_l)}` are such features. The weights of
    the channels come with torchmetrics, those of AlexNet with nothing: they need a file.

    Args:
        file: AlexNet's weights in torchvision's layout, such as ``alexnet-owt-7be5be79.pth``.

    Raises:
        InputError: the file is missing, or is not AlexNet's.
    """

    def __init__(self, *, file: str | Path) -> None:
        super().__init__()
        from torchvision.models import alexnet

        # Without memory for initial weights, which would be drawn from the global RNG.
        with torch.device("meta"):
            self.layers = alexnet().features
        state = load_state_dict(file)
        try:
            self.layers.load_state_dict(
                {
                    name.removeprefix("features."): value
                    for name, value in state.items()
                    if name.startswith("features.")
                },
                strict=True,
                assign=True,
            )
        except RuntimeError as error:
            raise InputError(
                f"{str(file)!r} has not the layers of AlexNet; expected torchvision's file of it, "
                "alexnet-owt-7be5be79.pth"
            ) from error
        weights = load_state_dict(
            packaged_weights(
                "torchmetrics",
                "functional/image/lpips_models/alex.pth",
                known_hash="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
                requirements="torchmetrics==1.9.0",
            )
        )
        for number in range(len(_TAPS)):
            self.register_buffer(f"weight_{number}", weights[f"lin{number}.model.1.weight"])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(-1, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(-1, 1, 1))
        self.source = f"LPIPS of AlexNet ({Path(file).name})"
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: shape (B, 3, H, W) in [0, 1], at least 32 x 32.

        Returns:
            Shape (B, D), differentiable.
        """
        x = (2 * images - 1 - self.get_buffer("shift")) / self.get_buffer("scale")
        found: list[Tensor] = []
        for number, layer in enumerate(self.layers[: _TAPS[-1] + 1]):
            x = layer(x)
            if number in _TAPS:
                weight = self.get_buffer(f"weight_{len(found)}") / math.prod(x.shape[2:])
                found.append((weight.sqrt() * F.normalize(x, dim=1)).flatten(1))
        return torch.cat(found, 1)

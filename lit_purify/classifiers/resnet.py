"""ResNet-18 for 32x32 images (He et al. 2016, with a stride-1 stem and no max-pooling)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# The attribute names are those of the published weights.


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: 2 halves height and width.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(branch + self.shortcut(x))


class ResNet18(nn.Module):
    """Images (B, 3, 32, 32) -> logits (B, ``num_classes``), random weights.

    Args:
        num_classes: number of classes K.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, stride=1)
        self.layer2 = _stage(64, 128, stride=2)
        self.layer3 = _stage(128, 256, stride=2)
        self.layer4 = _stage(256, 512, stride=2)
        self.linear = nn.Linear(512, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


def _stage(in_channels: int, channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(in_channels, channels, stride), ResidualBlock(channels, channels, 1)
    )

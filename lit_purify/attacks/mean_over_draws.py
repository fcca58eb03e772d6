"""A random defence as attacks should see it: by the mean over draws of its randomness.

A single draw is no judge of an image: with enough of them one is unlucky, and with enough images
one is lucky. What an attack follows and accepts goes by a mean over draws, the image it returns is
chosen over others, and whoever judges that image draws again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_purify.attacks.external import ExternalModel
from lit_purify.functional import correct


class MeanOverDraws(nn.Module):
    r"""Answers with :math:`\log \frac{1}{N} \sum_k \mathrm{softmax}(g(f_{\xi_k}(x)))`.

    Every query takes the next N randomness configurations. The cross-entropy of the answer is that
    of the mean probability, which SmoothAdv (Salman et al., 2019) follows on smoothed classifiers;
    its largest entry is the class that the draws together are for.

    Args:
        network: the defence, bound to a single sample.
        draws: N.
    """

    def __init__(self, network: ExternalModel, draws: int) -> None:
        super().__init__()
        self.network = network
        self.draws = draws

    def forward(self, images: Tensor) -> Tensor:
        """Log-probabilities (B, K) of images (B, C, H, W)."""
        logits = self.network(images, self.draws).unflatten(0, (self.draws, len(images)))
        return logits.log_softmax(-1).logsumexp(0) - math.log(self.draws)


class Selection:
    """Keeps, of several images of a sample, the one that is right in the fewest of N draws.

    The draws are the same for all of them, taken when this is made: no query made afterwards meets
    one of them again. Of images that are right equally often the less confident one is kept.

    Args:
        network: the defence, bound to a single sample.
        label: its class, shape (1,).
        draws: N.

    Attributes:
        image: the one that is kept, shape (1, C, H, W).
        share: share of the draws in which it is classified correctly.
    """

    def __init__(self, network: ExternalModel, label: Tensor, draws: int) -> None:
        source = network.defence.source
        assert source is not None  # random
        configurations = [source.next_configuration() for _ in range(draws)]
        self._judges = [network.defence.bind(xi, network.sample) for xi in configurations]
        self._label = label
        self._score = (math.inf, math.inf)
        self.image: Tensor

    @property
    def share(self) -> float:
        return self._score[0]

    def offer(self, image: Tensor) -> bool:
        """Whether an image of shape (1, C, H, W) takes the place of the one that is kept."""
        with torch.no_grad():
            logits = torch.cat([judge(image).float() for judge in self._judges])
        labels = self._label.expand(len(logits))
        confidence = logits.softmax(1).gather(1, labels[:, None])
        score = (correct(logits, labels).double().mean().item(), confidence.mean().item())
        better = score < self._score
        if better:
            self._score, self.image = score, image.detach().clone()
        return better

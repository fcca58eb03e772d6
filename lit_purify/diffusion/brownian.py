r"""One Brownian path for every number of steps.

The reverse SDE runs in the time :math:`\tau_t = -\ln \bar\alpha_t`, the integral of
:math:`\beta`. Its Brownian path is kept at every step of the full schedule: from step u to u - 1 it
moves by :math:`\sqrt{b_u}\, \xi_u`, with :math:`b_u = \tau_u - \tau_{u-1}` and :math:`\xi_u` the
draw keyed by (base seed, dataset index, u). A step from t to s that skips those between moves by
the sum,

.. math:: W_s - W_t = \sum_{u=s+1}^{t} \sqrt{b_u}\, \xi_u = \sqrt{b}\, z, \qquad
   z = \sum_u \sqrt{b_u / b}\, \xi_u, \qquad b = \sum_u b_u,

where z is standard normal. So chains of 10, 20, 50 and 100 steps follow the same path, each seeing
it at its own steps, and their outputs converge sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from lit_purify.diffusion.noise import NoiseConfiguration


def increment(
    noise: NoiseConfiguration, indices: Tensor, variances: Mapping[int, float], *, like: Tensor
) -> Tensor:
    """The path's increment over some steps in units of its standard deviation, z above.

    Args:
        noise: the randomness configuration xi.
        indices: dataset indices of the samples, shape (B,).
        variances: b_u of every step u passed; of a single one, z is its draw, bit by bit.
        like: a batch whose sample shape, dtype and device it takes.

    Returns:
        Shape (B, *like.shape[1:]).
    """
    total = sum(variances.values())
    return reduce(
        torch.add,
        (
            math.sqrt(variance / total) * noise.normal(indices, "reverse", u, like=like)
            for u, variance in variances.items()
        ),
    )

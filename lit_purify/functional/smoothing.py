r"""Randomized smoothing (Cohen, Rosenfeld & Kolter, 2019): a certificate from counted answers.

The smoothed classifier gives the class that a classifier h gives most often under Gaussian noise,

.. math:: G(x) = \arg\max_c P(h(x + \sigma z) = c), \qquad z \sim \mathcal N(0, I).

If c is answered with a probability of at least :math:`\underline{p} > 1/2`, then G answers c
everywhere within the l2 distance

.. math:: R = \sigma \, \Phi^{-1}(\underline{p})

of x. h may be random itself: as a function of its input, the probability of an answer lies in
[0, 1], which is all that the proof uses (Salman et al., 2019, lemma 2).

:math:`\underline{p}` is the one-sided bound of Clopper and Pearson from n independent answers. The
class is chosen by other answers than those that are counted for it; else the bound would not hold.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_purify.statistics import clopper_pearson_lower
from lit_purify.types import InputError, is_whole

ABSTAINED = -1
"""In the place of a class: no class is certified to be answered in more than half of the cases."""


class Certificate(NamedTuple):
    """What holds of each image, but for a probability of alpha an image.

    Attributes:
        prediction: what the smoothed classifier answers, (B,), int64; :data:`ABSTAINED` for none.
        radius: l2 distance, over all pixels in [0, 1], within which it answers the same, (B,),
            float64; nan where it abstained.
    """

    prediction: Tensor
    radius: Tensor


def certified_radius(successes: Tensor, n: int, *, sigma: float, alpha: float) -> Tensor:
    """The radius R of a class that was answered so often.

    Args:
        successes: answers of the class among n, shape (B,), whole numbers.
        n: independent answers in all.
        sigma: standard deviation of the noise, [0, 1] scale.
        alpha: probability that the radius is too large, at most.

    Returns:
        Radii above 0, shape (B,), float64; nan where the bound is not above 1/2.

    Example:
        >>> certified_radius(torch.tensor([50, 90, 100]), 100, sigma=0.5, alpha=0.001)
        tensor([   nan, 0.3783, 0.7502], dtype=torch.float64)
    """
    lower = [clopper_pearson_lower(k, n, alpha) for k in successes.tolist()]
    bounds = torch.tensor(lower, dtype=torch.float64, device=successes.device)
    return sigma * torch.special.ndtri(bounds.where(bounds > 0.5, torch.nan))


def check_answers(n0: int, n: int, alpha: float) -> None:
    """Raise :class:`InputError` unless so many answers can certify something.

    Args:
        n0: answers that choose the class.
        n: answers that are counted for it.
        alpha: probability that the certificate of an image is wrong, at most.
    """
    for name, value in (("n0", n0), ("n", n)):
        if not (is_whole(value) and value >= 1):
            raise InputError(
                f"{name} of the answers must be a whole number, at least 1, got {value!r}; 100 "
                "choose and 1000 count, say"
            )
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie in (0, 1), got {alpha}; 0.001 is usual")
    if alpha ** (1 / n) <= 0.5:
        raise InputError(
            f"n {n} answers can certify nothing at alpha {alpha:g}, even where all agree; take "
            f"{math.floor(math.log(alpha) / math.log(0.5)) + 1} or more"
        )


def certificate(
    selection: Tensor, votes: Tensor, n: int, *, sigma: float, alpha: float
) -> Certificate:
    """Cohen et al.'s CERTIFY.

    Args:
        selection: answers by class among the n0 that choose it, shape (B, K), whole numbers. Of
            classes that are answered alike it is the first.
        votes: answers by class among the n that are counted, shape (B, K).
        n: their number; more than there are votes where some answers were none.
        sigma: standard deviation of the noise, [0, 1] scale.
        alpha: probability that the certificate of an image is wrong, at most.
    """
    chosen = selection.argmax(1)
    radius = certified_radius(votes.gather(1, chosen[:, None])[:, 0], n, sigma=sigma, alpha=alpha)
    return Certificate(chosen.where(radius.isfinite(), ABSTAINED), radius)

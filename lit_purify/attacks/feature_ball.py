"""A ball around what a network sees of an image: a threat model of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_purify.attacks.base import Attack
from lit_purify.attacks.gradient import input_gradient
from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.features import ClassifierFeatures
from lit_purify.defence import Defence
from lit_purify.functional import lp_distance, margin, steepest
from lit_purify.precision import arithmetic
from lit_purify.types import InputError

SLACK = 1e-3
"""How far outside its ball, in units of eps, the rounding of the features may put an image."""

HALVINGS = 24
"""Of the way back into the ball, until an image fits; one that never does is the clean one."""

BISECTIONS = 10
"""Of what is left of the way then: the last moves the image by a thousandth of it."""

NEAR = 0.99
"""From this share of eps on an image counts as on the surface of its ball."""


class FeatureBall(Attack):
    r"""Base class of attacks within a distance of the features of a named network.

    The threat model is ``feature_l2``: :math:`\|\phi(x') - \phi(x)\|_2 \le \epsilon` and
    :math:`x' \in [0, 1]`. With :class:`~lit_purify.classifiers.LPIPSFeatures` it is
    :math:`\mathrm{LPIPS} \le \epsilon^2`. With a classifier :math:`\phi` is the input of its last
    layer, one layer as it is, and the distance is not a perceptual one of Laidlaw et al. (2021),
    which normalise and join several. No pixel has a bound: what the network does not see may change
    by any amount.

    Like their Lagrangian attack it climbs :math:`L(x') - \lambda \, d(x')` with the distance d and
    goes back into the ball by bisection on the way to the clean image. The multiplier is the one
    that the first-order conditions of an optimum give on the surface,
    :math:`\lambda = \langle \nabla L, \nabla d \rangle_+ / \|\nabla d\|^2`, and 0 inside: steps on
    the surface go along it, and stop where the two gradients point the same way. L is the margin by
    which another class wins.

    Args:
        eps: radius of the ball in units of the features, a number or a fraction.
        features: the network; of a classifier the input of its last layer, of any other what it
            returns, such as :class:`~lit_purify.classifiers.LPIPSFeatures`. It is frozen, and moved
            to where the images are.
        steps: iterations.
        draws: randomness configurations that a gradient is averaged over, where there are several.
        rows_per_pass: most images of the defence in one pass, draws counted. It changes time and
            memory, not the result.
    """

    p = 2.0

    def __init__(
        self, *, eps: float | str, features: nn.Module, steps: int, draws: int, rows_per_pass: int
    ) -> None:
        super().__init__(eps=eps)
        if not isinstance(features, nn.Module):
            raise InputError(
                f"features of {type(self).__name__} is {features!r}; expected a network, such as "
                "lit_purify.classifiers.embedded_resnet18()"
            )
        self.steps = self._whole("steps", steps)
        self.draws = self._whole("draws", draws)
        self.rows_per_pass = self._whole("rows_per_pass", rows_per_pass)
        self._network = features.eval().requires_grad_(False)
        if isinstance(features, Classifier):
            self._features: Callable[[Tensor], Tensor] = ClassifierFeatures(features)
        else:
            self._features = features

    def num_queries(self, defence: Defence) -> int:
        return self.steps * self._num_draws(defence)

    def num_iterations(self, defence: Defence) -> int:
        return self.steps

    def project(self, perturbed: Tensor, clean: Tensor) -> Tensor:
        """Images of [0, 1] that are back in the ball on the straight way to the clean ones."""
        found, seen = perturbed.clamp(0, 1), self._seen(clean)
        with torch.no_grad():
            out = (lp_distance(self._seen(found), seen) > self.eps).nonzero()[:, 0]
            if len(out) == 0:
                return found
            start, way, seen = clean[out], (found - clean)[out], seen[out]

            def fits(share: Tensor) -> Tensor:
                near = lp_distance(self._seen(start + share * way), seen) <= self.eps
                return near.view_as(share)

            # Halved until it fits, then between that and its double: of a short way back what is
            # left is as exact as of a long one.
            outside = torch.ones(len(out), 1, 1, 1, device=clean.device)
            inside = outside / 2
            for _ in range(HALVINGS):
                fitting = fits(inside)
                outside = torch.where(fitting, outside, inside)
                inside = torch.where(fitting, inside, inside / 2)
                if fitting.all():
                    break
            else:
                inside = torch.where(fits(inside), inside, 0)
            for _ in range(BISECTIONS):
                middle = (inside + outside) / 2
                fitting = fits(middle)
                inside = torch.where(fitting, middle, inside)
                outside = torch.where(fitting, outside, middle)
            found[out] = start + inside * way
        return found

    def admits(self, perturbed: Tensor, clean: Tensor) -> Tensor:
        """Which images lie in the ball, but for a thousandth of eps, and in [0, 1]: (B,), bool."""
        with torch.no_grad():
            distance = lp_distance(self._seen(perturbed), self._seen(clean))
        in_range = ((perturbed >= 0) & (perturbed <= 1)).flatten(1).all(1)
        return in_range & (distance <= (1 + SLACK) * self.eps)

    @property
    def threat_model(self) -> str:
        return f"feature_l2 of {self._named}"

    def settings(self) -> dict[str, object]:
        return {
            **super().settings(),
            "features": getattr(self._features, "source", self._named),
            "threat_model": self.threat_model,
            "gradient": "exact",
        }

    @property
    def _named(self) -> str:
        return str(getattr(self._network, "source", type(self._network).__name__))

    def _rise(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seen: Tensor
    ) -> Tensor:
        """Where the loss rises without leaving the ball, which the features ``seen`` are in."""
        gradient, _ = input_gradient(
            defence,
            images,
            labels,
            indices,
            loss=lambda logits, labels: -margin(logits, labels),
            draws=self._num_draws(defence),
            rows_per_pass=self.rows_per_pass,
        )
        return self._along_the_surface(steepest(gradient.nan_to_num(0), 2), images, seen)

    def _along_the_surface(self, rise: Tensor, images: Tensor, seen: Tensor) -> Tensor:
        """Gradient of the Lagrangian: of the loss, less its part out of the ball."""
        with torch.enable_grad():
            x = images.detach().requires_grad_()
            distance = lp_distance(self._seen(x), seen.detach())
            if not distance.requires_grad:
                raise InputError(
                    f"the features of {type(self).__name__} give no gradient; expected a network "
                    "that is differentiable in the images, without no_grad or detach"
                )
            (out,) = torch.autograd.grad(distance.sum(), x)
        out = steepest(out.nan_to_num(0), 2)  # of a distance of 0 the gradient is no number
        multiplier = (rise * out).flatten(1).sum(1).clamp(min=0)
        multiplier = multiplier.where(distance.detach() >= NEAR * self.eps, 0)
        return rise - multiplier.view(-1, 1, 1, 1) * out

    def _seen(self, images: Tensor) -> Tensor:
        """The features, (B, D), in float32 whatever the defence computes in."""
        self._network.to(images.device)
        with arithmetic("float32", images.device):
            return self._features(images)

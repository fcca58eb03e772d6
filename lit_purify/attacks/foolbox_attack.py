"""Any attack of foolbox (Rauber et al., 2017), named by its class path."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from lit_purify.attacks.external import ExternalAttack, ExternalModel
from lit_purify.types import InputError

# foolbox imports GitPython for its model zoo, which refuses to be imported where there is no git.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

if TYPE_CHECKING:  # imported by who names an attack of it
    import foolbox.attacks.base


class FoolboxAttack(ExternalAttack):
    """An attack of foolbox in the ball of radius ``eps``; the norm is the attack's own.

    In YAML the attack is a class path with its arguments::

        attack:
          class_path: lit_purify.attacks.FoolboxAttack
          init_args:
            eps: 0.5
            attack: {class_path: foolbox.attacks.L2PGD, init_args: {steps: 40}}

    Attacks with a fixed radius search in the ball. Minimisation attacks (DeepFool, Carlini &
    Wagner, FMN, HopSkipJump, ...) look for the smallest perturbation without knowing ``eps``; one
    that is larger than ``eps`` is shortened to it like any other, and then usually fails.

    Args:
        attack: the foolbox attack. Its distance must be l_1, l_2 or l_inf.
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        early_stop: end the attack on a sample at the first query inside the ball that fools a
            deterministic defence. Without it the attack's own result is returned.

    Attributes:
        finding_names: ``no_start``: the attack needs a misclassified image to start from and found
            none, so the clean image is returned; ``broke_off``: a condition that the attack
            asserts did not hold, as happens to decision-based attacks on a random defence, and the
            clean image is returned; ``not_found``: by its own account a minimisation attack found
            no adversarial image of any size (its result, which need not be near, is still
            projected and returned); and those of
            :class:`~lit_purify.attacks.external.ExternalAttack`.

    Raises:
        InputError: the attack measures no l_1, l_2 or l_inf distance.
    """

    library = "foolbox"
    finding_names = ("no_start", "broke_off", "not_found", *ExternalAttack.finding_names)

    def __init__(
        self,
        *,
        attack: foolbox.attacks.base.Attack,
        eps: float | str,
        early_stop: bool = False,
    ) -> None:
        self.p = _norm(attack)
        super().__init__(eps=eps, early_stop=early_stop)
        self._foolbox = attack

    @property
    def stops_early(self) -> bool:
        return self.early_stop

    def search(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
        from foolbox.attacks.base import MinimizationAttack
        from foolbox.models.pytorch import PyTorchModel

        model = PyTorchModel(network, bounds=(0, 1), device=image.device)
        minimises = isinstance(_innermost(self._foolbox), MinimizationAttack)
        try:
            with _quiet():
                found, _, success = self._foolbox(
                    model, image, label, epsilons=None if minimises else self.eps
                )
        except ValueError as error:
            if "init_attack failed" in str(error):
                network.findings.add("no_start")
                return image
            if "unsupported criterion" in str(error):
                raise InputError(
                    f"{type(self._foolbox).__name__} needs a target class; attacks here are "
                    "untargeted, name one that can do without"
                ) from error
            raise
        except AssertionError:
            network.findings.add("broke_off")
            return image
        if minimises and not success.item():
            network.findings.add("not_found")
        return found

    def settings(self) -> dict[str, object]:
        named = {"foolbox_attack": repr(self._foolbox), "norm": _NAMES[self.p]}
        return {"attack": type(self).__name__, **named, **super().settings()}


_NAMES = {1: "L1", 2: "L2", math.inf: "Linf"}


def _innermost(attack: foolbox.attacks.base.Attack) -> foolbox.attacks.base.Attack:
    """The attack itself where it is one that is repeated."""
    from foolbox.attacks.base import Repeated

    while isinstance(attack, Repeated):
        attack = attack.attack
    return attack


def _norm(attack: foolbox.attacks.base.Attack) -> float:
    """p of the distance that an attack measures."""
    try:
        distance = attack.distance  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # ValueError: one that takes a distance was given none
        distance = None
    p = getattr(distance, "p", None)
    if p not in _NAMES:
        raise InputError(
            f"{type(attack).__name__} measures {distance or 'no distance'}; expected an attack in "
            "the l1, l2 or linf distance, such as foolbox.attacks.L2PGD or LinfPGD, or give its "
            "argument `distance` foolbox.distances.LpDistance with p 1, 2 or .inf where it has one"
        )
    return float(p)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep foolbox from configuring the root logger, and from repeating what the findings say."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)  # `logging.info` installs a printing one where there is none
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*failed to draw sufficient random.*")
            yield
    finally:
        logging.root.removeHandler(handler)

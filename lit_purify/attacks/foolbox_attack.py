"""Any attack of foolbox (Rauber et al., 2017), named by its class path."""

from __future__ import annotations

import copy
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_purify.attacks.external import ExternalAttack, ExternalModel
from lit_purify.attacks.global_randomness import own_randomness
from lit_purify.defence import Defence
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
        InputError: the attack measures no l_1, l_2 or l_inf distance, or fails on the first queries
            of a linear classifier: it wants a target class, starting points, data to draw from, or
            other arguments.
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
        self._try()

    @property
    def stops_early(self) -> bool:
        return self.early_stop

    def surroundings(self) -> AbstractContextManager[object]:
        return _quiet()

    def search(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
        from foolbox.attacks.base import MinimizationAttack
        from foolbox.models.pytorch import PyTorchModel

        model = PyTorchModel(network, bounds=(0, 1), device=image.device)
        minimises = isinstance(_innermost(self._foolbox), MinimizationAttack)
        attack = copy.deepcopy(self._foolbox)  # it may keep what it works on in itself
        try:
            found, _, success = attack(
                model, image, label, epsilons=None if minimises else self.eps
            )
        except ValueError as error:
            if "init_attack failed" not in str(error):
                raise
            network.note("no_start")
            return image
        except AssertionError:
            network.note("broke_off")
            return image
        if minimises and not success:
            network.note("not_found")
        return found

    def _try(self) -> None:
        """Refuse an attack that fails on the first queries of a linear classifier."""
        kind = _innermost(self._foolbox)
        trial, queries = copy.copy(self), 0
        trial._foolbox = copy.deepcopy(self._foolbox)
        trial.eps = self.eps or 1.0  # with 0 no attack is ever run

        def classify(images: Tensor) -> Tensor:
            nonlocal queries
            queries += 1
            if queries > _TRIAL_QUERIES:
                raise _Runs
            return images.mean((-2, -1)) - images.mean((1, 2, 3), keepdim=True).flatten(1)

        network = ExternalModel(Defence(classify, indices=torch.zeros(1, dtype=torch.int64)))
        reason = ""
        with _quiet(), torch.inference_mode(False), torch.enable_grad(), own_randomness(0):
            image = torch.rand(1, 4, 16, 16, device="cpu", dtype=torch.float32)
            label = classify(image).argmax(1)
            try:
                trial.search(network, image, label, 0)
            except _Runs:
                pass
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
            if "broke_off" in network.findings:
                reason = "a condition that it asserts does not hold"
        if isinstance(steps := getattr(kind, "steps", None), int) and steps < 1:
            reason = f"it makes {steps} steps"
        if reason:
            raise InputError(
                f"{type(kind).__name__} cannot run as it is configured: {reason}; expected "
                "an untargeted attack that starts from the image alone; correct its arguments, or "
                "name another one"
            )

    def settings(self) -> dict[str, object]:
        named = {
            "foolbox_attack": repr(self._foolbox),
            "norm": _NAMES[self.p],
        }
        return {"attack": type(self).__name__, **named, **super().settings()}


_TRIAL_QUERIES = 30
"""What an attack has to get through to be taken for one that runs."""


class _Runs(Exception):
    """Ends the trial of an attack: it has asked enough."""


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

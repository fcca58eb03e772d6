"""Attacks on a defence; each is a class that a YAML can name."""

from lit_purify.attacks.autoattack import AutoAttack
from lit_purify.attacks.base import Attack, Finding
from lit_purify.attacks.black_box import BlackBox
from lit_purify.attacks.bpda import BPDA, BPDAEOT
from lit_purify.attacks.cost import Cost
from lit_purify.attacks.diffhammer import DiffHammer
from lit_purify.attacks.eot import PGDEOT
from lit_purify.attacks.external import ExternalAttack
from lit_purify.attacks.foolbox_attack import FoolboxAttack
from lit_purify.attacks.gradient import input_gradient
from lit_purify.attacks.ladder import Ladder
from lit_purify.attacks.learned_filters import LearnedFilters
from lit_purify.attacks.low_frequency import LowFrequency
from lit_purify.attacks.perceptual import Perceptual
from lit_purify.attacks.pgd import PGD
from lit_purify.attacks.rays import RayS
from lit_purify.attacks.spsa import SPSA
from lit_purify.attacks.square import Square
from lit_purify.attacks.uniform import Uniform
from lit_purify.attacks.watch import Watch

__all__ = [
    "BPDA",
    "BPDAEOT",
    "PGD",
    "PGDEOT",
    "SPSA",
    "Attack",
    "AutoAttack",
    "BlackBox",
    "Cost",
    "DiffHammer",
    "ExternalAttack",
    "Finding",
    "FoolboxAttack",
    "Ladder",
    "LearnedFilters",
    "LowFrequency",
    "Perceptual",
    "RayS",
    "Square",
    "Uniform",
    "Watch",
    "input_gradient",
]

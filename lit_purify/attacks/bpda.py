"""Backward pass differentiable approximation (Athalye et al., 2018)."""

from __future__ import annotations

from lit_purify.attacks.eot import PGDEOT
from lit_purify.attacks.pgd import PGD


class BPDA(PGD):
    """PGD whose backward pass takes the purifier for the identity.

    Cheap, as no gradient goes through the diffusion model, and approximate: a defence that it does
    not break may still fall to :class:`~lit_purify.attacks.PGD`. The arguments are those of PGD.
    """

    straight_through = True


class BPDAEOT(PGDEOT):
    """BPDA with the mean gradient of many noise draws. The arguments are those of PGDEOT."""

    straight_through = True

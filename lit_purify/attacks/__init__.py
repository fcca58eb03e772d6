"""Attacks on a defence; each is a class that a YAML can name."""

from lit_purify.attacks.base import Attack, Target
from lit_purify.attacks.pgd import PGD
from lit_purify.attacks.watch import WatchedTarget

__all__ = ["PGD", "Attack", "Target", "WatchedTarget"]

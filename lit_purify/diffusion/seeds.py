"""Seeds: of every draw (eqs. 12 and 13), and base seeds that are derived from another one."""

from __future__ import annotations

import numpy as np

from lit_purify.types import InputError, is_whole

P_S = 83492791
P_I = 73856093
P_T = 19349663


def seed_hash(s: int, i: int, t: int) -> int:
    """Multiplicative hash of eq. 13, an integer in [0, 2**32).

    Args:
        s: base seed, at least 0.
        i: dataset index of the sample, at least 0.
        t: slot, at least 0: ``2t`` of the forward or ``2t + 1`` of the reverse process (eq. 12).

    Example:
        >>> seed_hash(0, 0, 1) == P_T
        True
        >>> seed_hash(1, 2, 3)
        255973072
    """
    if min(s, i, t) < 0:
        raise ValueError(f"seed_hash needs non-negative integers, got s={s}, i={i}, t={t}")
    return ((P_S * s) ^ (P_I * i) ^ (P_T * t)) % 2**32


def check_seed(seed: int) -> None:
    """Raise :class:`InputError` unless it is a base seed, one of 0 .. 2**32 - 1.

    The hash of eq. 13 is taken modulo 2**32: larger ones would repeat the noise of smaller ones.
    """
    if not (is_whole(seed) and 0 <= seed < 2**32):
        raise InputError(
            f"the base seed must be a whole number of 0 .. 2**32 - 1, got {seed!r}; larger ones "
            "would repeat the noise of smaller ones"
        )


def derive_seed(seed: int, purpose: str, *keys: int) -> int:
    """A base seed for an independent draw, an integer in [0, 2**32).

    Args:
        seed: the run's seed.
        purpose: what the draw is for, such as ``"transfer"``; another name, another stream.
        *keys: numbers of the draw within its purpose.

    Example:
        >>> derive_seed(0, "transfer", 0) != derive_seed(0, "transfer", 1)
        True
    """
    # 256 ends the name, so that no name and keys read like another name and keys.
    spawn_key = (*purpose.encode(), 256, *keys)
    return int(np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(1)[0])

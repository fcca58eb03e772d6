"""How a defence is attacked and tested: under which randomness, on which side.

| protocol   | attacked               | tested                               |
|------------|------------------------|--------------------------------------|
| `base`     | the classifier alone   | the classifier alone                 |
| `blind`    | the classifier alone   | noise xi: purified                   |
| `fixed`    | noise xi               | the same noise xi                    |
| `transfer` | noise xi               | N other fixed noises (Table 4)       |
| `fresh`    | new noise every pass   | N new noises, from a stream apart    |

`fixed` is the paper's evaluation: xi_attack = xi_test. `blind` is no white box: its attacker does
not know that there is a purifier, and an attack that does must find more. Adversarial images are
found once for each of the three things attacked, and re-used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lit_purify.diffusion.noise import FixedNoise, FreshNoise, NoiseSource
from lit_purify.diffusion.seeds import derive_seed

ProtocolName = Literal["base", "blind", "fixed", "transfer", "fresh"]
Surface = Literal["base", "fixed", "fresh"]
"""What an adversarial image was found against; a protocol may re-use another's images."""
Chain = Literal["fixed", "fresh"]
"""Surfaces that are the whole chain of purifier and classifier."""


SURFACES: dict[Surface, str] = {
    "base": "Classifier alone",
    "fixed": "Purified (fixed)",
    "fresh": "Purified (fresh)",
}
"""Surface -> what reports call it."""


@dataclass(frozen=True)
class Protocol:
    """One way to test adversarial images.

    Args:
        label: what reports call its robust accuracy.
        surface: what the images are found against.
        test_noise: (run's seed, k) -> randomness configuration of the k-th test of an image;
            ``None`` tests the classifier without purification.
        repeats: whether another k is another configuration, so that several tests tell more.
    """

    label: str
    surface: Surface
    test_noise: Callable[[int, int], FixedNoise] | None
    repeats: bool = False


def transfer_noise(seed: int, k: int) -> FixedNoise:
    """The k-th other fixed randomness configuration that `transfer` tests under."""
    return FixedNoise(derive_seed(seed, "transfer", k))


def fresh_noise(seed: int, k: int) -> FixedNoise:
    """The configuration of the k-th test pass of the fresh noise, which no attack has seen."""
    return FreshNoise(seed, "test", passes=k).next_configuration()


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "base": Protocol("Classifier alone, attacked", "base", None),
    "blind": Protocol(
        "Purified, attacked: images found on the classifier alone (blind)",
        "base",
        lambda seed, _: FixedNoise(seed),
    ),
    "fixed": Protocol(
        "Purified, attacked: attacker knows the noise (fixed)",
        "fixed",
        lambda seed, _: FixedNoise(seed),
    ),
    "transfer": Protocol(
        "Purified, attacked: tested under other noise (transfer)",
        "fixed",
        transfer_noise,
        repeats=True,
    ),
    "fresh": Protocol(
        "Purified, attacked: new noise at every pass (fresh)", "fresh", fresh_noise, repeats=True
    ),
}

ATTACK_NOISE: dict[Surface, Callable[[int], NoiseSource] | None] = {
    "base": None,
    "fixed": FixedNoise,
    "fresh": lambda seed: FreshNoise(seed, "attack"),
}
"""Run's seed -> where an attack on this surface takes its noise from."""

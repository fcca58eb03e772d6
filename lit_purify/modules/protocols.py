"""How a defence is attacked and tested: under which randomness, on which side.

| protocol   | attacked               | tested                          |
|------------|------------------------|---------------------------------|
| `base`     | the classifier alone   | the classifier alone            |
| `fixed`    | noise xi               | the same noise xi               |
| `transfer` | noise xi               | another fixed noise (Table 4)   |
| `fresh`    | new noise every pass   | new noise, from a stream apart  |

`fixed` is the paper's evaluation: xi_attack = xi_test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lit_purify.diffusion.noise import FixedNoise, FreshNoise, NoiseSource, derive_seed

ProtocolName = Literal["base", "fixed", "transfer", "fresh"]
Surface = Literal["base", "fixed", "fresh"]
"""What an adversarial image was found against; a protocol may re-use another's images."""


@dataclass(frozen=True)
class Protocol:
    """One way to test adversarial images.

    Args:
        surface: what the images are found against.
        test_noise: run's seed -> where the test takes its noise from; ``None`` tests the
            classifier without purification.
    """

    surface: Surface
    test_noise: Callable[[int], NoiseSource] | None


def transfer_noise(seed: int) -> FixedNoise:
    """The other fixed randomness configuration that `transfer` tests under."""
    return FixedNoise(derive_seed(seed, "transfer", 0))


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "base": Protocol("base", None),
    "fixed": Protocol("fixed", FixedNoise),
    "transfer": Protocol("fixed", transfer_noise),
    "fresh": Protocol("fresh", lambda seed: FreshNoise(seed, "test")),
}

ATTACK_NOISE: dict[Surface, Callable[[int], NoiseSource] | None] = {
    "base": None,
    "fixed": FixedNoise,
    "fresh": lambda seed: FreshNoise(seed, "attack"),
}
"""Run's seed -> where an attack on this surface takes its noise from."""

"""Images of any memory layout and precision: an attack finds what it finds for plain float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import foolbox.attacks as fa
import pytest
import torch
from defences import chain, convnet
from oracles import some_images
from torch import Tensor

from lit_purify.attacks import BPDA, BPDAEOT, PGD, PGDEOT, AutoAttack, FoolboxAttack, Uniform
from lit_purify.attacks.external import ExternalAttack, ExternalModel
from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise
from lit_purify.types import InputError

OPTIONS: Any = {"eps": 16 / 255, "steps": 3, "rel_stepsize": 0.5}
ATTACKS: dict[str, Callable[[], Any]] = {
    "PGD": lambda: PGD(**OPTIONS),
    "PGDEOT": lambda: PGDEOT(draws=2, **OPTIONS),
    "BPDA": lambda: BPDA(**OPTIONS),
    "BPDAEOT": lambda: BPDAEOT(draws=2, **OPTIONS),
    "Uniform": lambda: Uniform(eps=16 / 255),
    "AutoAttack": lambda: AutoAttack(
        attacks=["fab-t", "square"], square_queries=3, early_stop=False
    ),
    "AutoAttack, L1": lambda: AutoAttack(
        norm="L1", eps=2, attacks=["apgd-ce"], square_queries=3, early_stop=False
    ),
    "L2PGD": lambda: FoolboxAttack(attack=fa.L2PGD(steps=3), eps=0.5),
    "DeepFool": lambda: FoolboxAttack(attack=fa.L2DeepFoolAttack(steps=5), eps=0.5),
    "FMN": lambda: FoolboxAttack(attack=fa.LInfFMNAttack(steps=5), eps=0.1),
    "Carlini & Wagner": lambda: FoolboxAttack(
        attack=fa.L2CarliniWagnerAttack(binary_search_steps=1, steps=3), eps=0.5
    ),
    "HopSkipJump": lambda: FoolboxAttack(
        attack=fa.HopSkipJumpAttack(steps=1, initial_gradient_eval_steps=10), eps=0.5
    ),
}
INDICES = torch.arange(40, 42)
# Values that float16 holds exactly.
IMAGES = (some_images(2).float().clamp(0, 1) * 256).round() / 256


def transposed(images: Tensor) -> Tensor:
    return images.mT.contiguous().mT


def of_a_larger_batch(images: Tensor) -> Tensor:
    wide = torch.rand(5, 6, 9, 20)
    view = wide[1::2, ::2, :8, 2:18:2][: len(images)]
    view.copy_(images)
    return view


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": transposed,
    "strided": of_a_larger_batch,
    "float16": Tensor.half,
    "float64": Tensor.double,
    "bfloat16, channels_last": lambda x: x.bfloat16().to(memory_format=torch.channels_last),
}


class ChannelsLast(torch.nn.Module):
    """A network that works, and gives gradients, in channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.network = convnet().to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.contiguous(memory_format=torch.channels_last))
        return logits


def labels(defence: Defence) -> Tensor:
    return defence(IMAGES, INDICES).argmax(1)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_result_is_that_of_plain_images(name: str, layout: str) -> None:
    images = LAYOUTS[layout](IMAGES)
    assert images.shape == IMAGES.shape
    plain = images.float().contiguous(memory_format=torch.contiguous_format)
    assert images.dtype != plain.dtype or images.stride() != plain.stride()
    attack = ATTACKS[name]()
    # Attacks of other libraries ask often: they get the classifier alone.
    alone = isinstance(attack, ExternalAttack)
    defence = Defence(convnet()) if alone else chain(FixedNoise(0), dtype=torch.float32)
    want = attack(defence, plain, labels(defence), INDICES, seed=1)
    found = attack(defence, images, labels(defence), INDICES, seed=1)
    assert found.dtype == torch.float32
    assert torch.equal(found, want)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_network_may_work_in_channels_last(name: str) -> None:
    """Its gradients have that layout too, of which some libraries take views."""
    plain, last = Defence(convnet()), Defence(ChannelsLast())
    (gradient,) = torch.autograd.grad(last(x := IMAGES.clone().requires_grad_())[:, 0].sum(), x)
    assert not gradient.is_contiguous()
    attack = ATTACKS[name]()
    found = [attack(defence, IMAGES, labels(plain), INDICES, seed=1) for defence in (plain, last)]
    # Sums in another order: a coordinate that is near a tie may go the other way.
    assert torch.isclose(found[0], found[1], atol=1e-4).double().mean() > 0.98
    assert attack.admits(found[1], IMAGES).all()


def test_libraries_get_contiguous_gradients() -> None:
    network = ExternalModel(Defence(ChannelsLast(), indices=INDICES))
    x = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    assert gradient.is_contiguous()


@pytest.mark.parametrize("name", ATTACKS)
def test_float16_autocast_is_refused(name: str) -> None:
    """Gradients below its smallest number are 0; bfloat16 has the range of float32."""
    defence, attack = Defence(convnet()), ATTACKS[name]()
    batch = IMAGES, labels(defence), INDICES
    with torch.autocast("cpu", torch.float16), pytest.raises(InputError, match="bfloat16"):
        attack(defence, *batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert attack.admits(attack(defence, *batch), IMAGES).all()

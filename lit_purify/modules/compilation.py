"""Networks compiled by ``torch.compile``: which ones a defence has, and how a step is passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lit_purify.classifiers import Classifier
from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.purifier import Purifier


def networks(purifier: Purifier, classifier: Classifier) -> dict[str, nn.Module]:
    """The networks of a defence by their place: what :func:`compile_network` is for.

    They are the modules that a purifier holds and calls; a list or dictionary of modules is
    entered. A purifier without any (a blur, a JPEG) has nothing to compile.
    """
    found = {f"purifier.{name}": network for name, network in _called_children(purifier)}
    return {**found, "classifier": classifier}


def _called_children(parent: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in parent.named_children():
        if type(child).forward is not nn.Module.forward:
            yield name, child
        else:  # it holds modules and cannot be called itself
            yield from ((f"{name}.{inner}", network) for inner, network in _called_children(child))


def compile_network(network: nn.Module) -> None:
    """Have a network compiled by ``torch.compile`` at its first call, in place, and once only."""
    if is_compiled(network):
        return
    network.compile()
    compiled: Callable[..., Tensor] = network._compiled_call_impl  # type: ignore[assignment]
    if isinstance(network, Denoiser):
        # The step t as a tensor: of a number, each value would have a compiled graph of its own,
        # and after eight graphs PyTorch stops compiling.
        def call(x_t: Tensor, t: int | Tensor) -> Tensor:
            steps = t if isinstance(t, Tensor) else torch.full((len(x_t),), t, device=x_t.device)
            return compiled(x_t, steps)

        network._compiled_call_impl = call


def is_compiled(network: nn.Module) -> bool:
    """Whether calls of a network run compiled code."""
    return network._compiled_call_impl is not None

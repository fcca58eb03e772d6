"""Exact gradient through a long chain in the memory of one step.

Backpropagation through all t* steps would keep every network activation of every step. Instead
only the states between the steps are kept, and a step is computed again when the backward pass
reaches it: the same gradient, for one more forward pass. Steps whose activations fit into a memory
budget keep them and are not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

Step = Callable[[Tensor], Tensor]


def activation_bytes(step: Step, x: Tensor) -> int:
    """Memory that the backward pass of ``step(x)`` keeps, in bytes, frozen weights not counted."""
    stored: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            storage = tensor.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    kept: list[Tensor] = []  # the output owns the activations; they must outlive the count
    # Uncompiled: of a compiled network every activation is a leaf, as its weights are.
    with (
        torch.compiler.set_stance("force_eager"),
        torch.enable_grad(),
        saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        kept.append(step(x.detach().requires_grad_()))
    return sum(stored.values())


def run_chain(steps: Sequence[Step], x: Tensor, *, num_kept: int = 0) -> Iterator[Tensor]:
    """Apply the steps one after another and yield the state after each.

    Args:
        steps: functions of the state alone, deterministic, so that computing one again gives the
            same value.
        x: first state.
        num_kept: how many of the last steps keep their activations instead of computing them
            again in the backward pass. It changes time and memory, never the gradient.
    """
    differentiate = torch.is_grad_enabled() and x.requires_grad
    for position, step in enumerate(steps):
        if differentiate and position < len(steps) - num_kept:
            x = checkpoint(step, x, use_reentrant=False, preserve_rng_state=False)
        else:
            x = step(x)
        yield x

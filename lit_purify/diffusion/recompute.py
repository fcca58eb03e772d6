"""Exact gradient through a long chain in the memory of one step.

Backpropagation through all t* steps would keep every network activation of every step. Instead
only the states between the steps are kept, and a step is computed again when the backward pass
reaches it: the same gradient, for one more forward pass. Steps whose activations fit into a memory
budget keep them and are not computed again.

The transforms of ``torch.func`` (``vjp``, ``grad``, ``jacrev``) do not allow that: under them every
step keeps its activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lit_purify.diffusion.free_memory import GIB, usable_bytes
from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.types import Auto, InputError

Step = Callable[[Tensor], Tensor]
Correction = Callable[[Tensor, Tensor], Tensor]
"""(state before a step, state after it) -> the state to go on with."""


def activation_bytes(step: Step, x: Tensor) -> int:
    """Memory that the backward pass of ``step(x)`` keeps, in bytes.

    Only what the step itself allocates counts: neither ``x`` nor the weights, but the copies of
    weights that mixed precision makes. It works on tensors without data too (``meta``, fake ones).
    """
    with (
        torch.compiler.set_stance("force_eager"),  # operations of a compiled network are not seen
        saved_tensors_hooks(_itself, _itself),  # a recomputation around this counts what is saved
        torch.enable_grad(),
        LiveBytes() as live,
    ):
        # Of a view: mixed precision keeps a copy of a leaf for itself. The graph is all that holds
        # anything afterwards.
        graph = step(x.detach().requires_grad_().view_as(x)).grad_fn
        kept = live.now
    del graph
    return kept


def _itself(tensor: Tensor) -> Tensor:
    return tensor


class ActivationBudget:
    """Memory for keeping activations between the forward and the backward pass.

    Args:
        gib: its size in GiB; 0 keeps none. ``auto`` is what a run sets (:attr:`gib`), else half of
            the memory that is usable when it is first asked for.

    Attributes:
        gib: its size in GiB; ``None`` while it is not known.

    Raises:
        InputError: a size that is negative or not finite.
    """

    def __init__(self, gib: float | Auto) -> None:
        if gib != "auto" and not 0 <= gib * GIB < math.inf:
            raise InputError(
                f"memory_budget_gib must be finite and at least 0, or auto, got {gib}; "
                "0 keeps no activations"
            )
        self.gib = None if gib == "auto" else gib
        self._bytes: dict[tuple[object, ...], int] = {}

    @property
    def num_bytes(self) -> int:
        """Its size in bytes; 0 while it is not known."""
        return 0 if self.gib is None else int(self.gib * GIB)

    def steps(self, network: Step, x: Tensor) -> int:
        """How many passes of a network on ``x`` may keep their activations.

        The network is measured once for every sample shape and precision, on one row and on two:
        some of what it keeps does not grow with the batch, such as weights in mixed precision.
        """
        rows = len(x)
        if self.gib is None:
            self.gib = usable_bytes(x.device) / 2 / GIB
        if self.gib <= 0 or rows == 0:
            return 0
        one = self._measured(network, x[:1])
        # Nothing is measured on more rows than will be computed: they might not fit.
        added = self._measured(network, x[:2]) - one if rows > 1 else 0
        return self.num_bytes // max(1, one + (rows - 1) * added)

    def _measured(self, network: Step, x: Tensor) -> int:
        device = x.device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        key = (x.shape, x.dtype, x.device, autocast)
        if key not in self._bytes:
            self._bytes[key] = activation_bytes(network, x)
        return self._bytes[key]


def can_recompute(x: Tensor) -> bool:
    """Whether a backward pass may come that computes steps from ``x`` on again."""
    # torch.func, which switches these hooks off, takes no function with a backward pass of its own.
    hooks = torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
    return torch.is_grad_enabled() and x.requires_grad and hooks


class _Recomputed(torch.autograd.Function):
    """A step that keeps its input alone, and is computed again in the backward pass.

    ``torch.utils.checkpoint`` does the same through a hook for every tensor that the network would
    keep, which costs a network of small batches a tenth of its time.
    """

    @staticmethod
    def forward(ctx: Any, step: Step, x: Tensor) -> Tensor:
        ctx.step = step
        ctx.autocast = _autocast(x.device.type)
        ctx.save_for_backward(x)
        return step(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        again = torch.is_grad_enabled()  # this gradient is to be differentiated once more
        with torch.enable_grad(), ctx.autocast:
            x = x if again else x.detach().requires_grad_()
            # Of a view: to a leaf, mixed precision and the hooks of modules cling.
            (pulled,) = torch.autograd.grad(ctx.step(x.view_as(x)), x, gradient, create_graph=again)
        return None, pulled


def _autocast(device: str) -> torch.autocast:
    """The mixed precision that is in force, for later."""
    return torch.autocast(
        device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    )


def run_chain(
    steps: Sequence[Step],
    x: Tensor,
    *,
    num_kept: int = 0,
    after: Sequence[Correction | None] | None = None,
    carried: int = 0,
) -> Iterator[Tensor]:
    """Apply the steps one after another and yield the state after each.

    Args:
        steps: functions of the state alone, deterministic, so that computing one again gives the
            same value.
        x: first state, shape (B, C, H, W).
        num_kept: how many of the last steps keep their activations instead of computing them
            again in the backward pass. It changes time and memory, never the gradient.
        after: what is done after each step; what it keeps for the backward pass stays kept, and it
            may depend differentiably on other tensors than the state. ``None`` does nothing.
        carried: k images that every step takes and gives beside the state, in k C further channels.
            The first step is given zeros; they are not yielded.
    """
    recompute = can_recompute(x)
    beside = torch.zeros_like(x).repeat(1, carried, 1, 1) if carried else None
    for position, step in enumerate(steps):
        again = recompute and position < len(steps) - num_kept
        given = x if beside is None else torch.cat([x, beside], 1)
        y = _Recomputed.apply(step, given) if again else step(given)
        if beside is not None:
            y, beside = y[:, : x.shape[1]], y[:, x.shape[1] :]
        correct = None if after is None else after[position]
        x = y if correct is None else correct(x, y)
        yield x

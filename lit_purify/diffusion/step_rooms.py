"""Where the activations of a compiled step are kept until its backward pass: one step a room.

A room is used again and again. What ran last in it can be differentiated; whoever ran before must
run once more. So as many rooms as fit into memory keep the activations of as many steps, and any
number of steps can be differentiated in a single room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

StepFunction = Callable[..., Tensor]
"""(x, further tensors ...) -> x of the next step; differentiable in x."""

_WARM_UP = 3
"""Passes before a capture: what a library sets up at its first calls cannot be captured."""


class Room:
    """A room without a graph, on any device.

    Args:
        function: the step.

    Attributes:
        ticket: number of the pass whose activations are in the room.
        num_bytes: memory of a GPU that the room has taken for good.
    """

    def __init__(self, function: StepFunction) -> None:
        self.function = function
        self.ticket = 0
        self.num_bytes = 0
        self._kept: tuple[Tensor, Tensor] | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """The next state, detached; what was in the room before is given up."""
        self.clear()
        with torch.enable_grad():
            x = inputs[0].detach().requires_grad_()
            y = self.function(x, *inputs[1:])
        self._kept = (x, y)
        return y.detach()

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient at the x of the last pass; can be asked for once."""
        assert self._kept is not None
        x, y = self._kept
        (found,) = torch.autograd.grad(y, x, gradient)
        self.clear()
        return found

    def clear(self) -> None:
        """Give up what is in the room."""
        self._kept = None
        self.ticket += 1


class GraphRoom(Room):
    """A room on an NVIDIA GPU: forward and backward pass are a CUDA graph each, replayed.

    The graphs of a room share their memory: only the last one replayed has its activations there.
    That is what tickets watch over, so nothing is ever read from a buffer that a later replay has
    overwritten. States and gradients are copied in and out, which costs little beside a network.
    ``torch.compile(mode="reduce-overhead")`` would make a graph of its own for every place in the
    chain and every set of tensors alive beside it, for three passes each.

    Args:
        function: the step, compiled.
        key: what graphs depend on beside the inputs' shapes and types, such as where the weights
            lie and the arithmetic in force.
    """

    def __init__(self, function: StepFunction, key: Callable[[], object]) -> None:
        super().__init__(function)
        self._key = key
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[object, _Graphs] = {}
        self._last: _Graphs | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        self.ticket += 1
        key = (self._key(), *((tuple(x.shape), x.dtype, x.device) for x in inputs))
        if key not in self._graphs:
            before = torch.cuda.memory_reserved(inputs[0].device)
            self._graphs[key] = _Graphs(self.function, inputs, self._pool)
            self.num_bytes += max(0, torch.cuda.memory_reserved(inputs[0].device) - before)
        self._last = self._graphs[key]
        return self._last.replay_forward(inputs)

    def backward(self, gradient: Tensor) -> Tensor:
        assert self._last is not None
        found = self._last.replay_backward(gradient)
        self.clear()
        return found


class _Graphs:
    """Forward and backward pass of a step, captured for inputs of given shapes."""

    def __init__(self, function: StepFunction, inputs: tuple[Tensor, ...], pool: Any) -> None:
        self._inputs = [given.detach().clone() for given in inputs]  # written to between replays
        x, *others = self._inputs
        with torch.enable_grad(), _no_cached_casts():
            aside: torch.cuda.Stream = torch.cuda.Stream(x.device)  # type: ignore[no-untyped-call]
            current = torch.cuda.current_stream(x.device)
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    leaf = x.detach().requires_grad_()  # autograd ties a leaf to a stream
                    y = function(leaf, *others)
                    torch.autograd.grad(y, leaf, torch.zeros_like(y))
            current.wait_stream(aside)
            self._up, self._down = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            # Other threads, such as a data loader's that pins memory, may go on meanwhile.
            with torch.cuda.graph(self._up, pool=pool, capture_error_mode="thread_local"):
                leaf = x.detach().requires_grad_()
                y = function(leaf, *others)
            self._gradient = torch.zeros_like(y)
            with torch.cuda.graph(self._down, pool=pool, capture_error_mode="thread_local"):
                (found,) = torch.autograd.grad(y, leaf, self._gradient)
        self._y, self._found = y.detach(), found

    def replay_forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for place, given in zip(self._inputs, inputs, strict=True):
            place.copy_(given)
        self._up.replay()
        return self._y.clone()

    def replay_backward(self, gradient: Tensor) -> Tensor:
        self._gradient.copy_(gradient)
        self._down.replay()
        return self._found.clone()


@contextmanager
def _no_cached_casts() -> Iterator[None]:
    """Autocast drops the casts it has cached when it ends, and a graph would go on reading them."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)

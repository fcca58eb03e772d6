"""A reverse step as one compiled function: network and sampler, forward and backward.

The steps t and the numbers of the sampler are tensors, so one function serves every step of a
chain; its batch dimension is free, so it serves every batch. On an NVIDIA GPU both passes are CUDA
graphs (:mod:`lit_purify.diffusion.step_rooms`), of the compiled function or of the function as it
is: the same kernels, launched at once. Graphs need fixed sizes: rows are padded up to a few sizes,
and the padded ones never leave this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from lit_purify.diffusion.step_rooms import GraphRoom, Room
from lit_purify.precision import float32_state

Rule = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor], Tensor], Tensor]
"""(x of shape (B, C, H, W), the steps t to evaluate the network at, each of shape (B,), the
sampler's coefficients, noise) -> next x."""


_COMPILATIONS = 64
"""Of a step, at most; what needs more is compiled for something that changes all the time."""


def can_run_compiled(x: Tensor) -> bool:
    """Whether a compiled step may be called with x here.

    It knows first derivatives of reverse mode alone: not the transforms of ``torch.func``, nor
    forward mode; and who looks at every operation (a dispatch mode), or has set PyTorch's stance to
    ``force_eager``, wants none compiled.
    """
    forced = torch._dynamo.eval_frame._stance.stance == "force_eager"
    moving = forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
    watched = torch._C._len_torch_dispatch_stack() > 0
    return not (forced or moving or watched or torch._C._are_functorch_transforms_active())


def padded_rows(rows: int, largest: int) -> int:
    """Rows that a batch is padded to: a power of two, at least 2, or ``largest`` if it is less.

    Example:
        >>> [padded_rows(rows, 100) for rows in (1, 2, 3, 5, 64, 65, 100)]
        [2, 2, 4, 8, 64, 100, 100]
    """
    return max(2, min(1 << (rows - 1).bit_length(), max(rows, largest)))


class CompiledStep:
    """A step that is called with states of any batch size, and differentiated once.

    Args:
        rule: the step; deterministic, maps every row by itself. It is compiled whole, at its first
            call: code that ``torch.compile`` cannot take in raises then.
        weights: gives the weights it uses.
        backend: of ``torch.compile``; ``None`` compiles nothing, which leaves the graphs of a GPU.
        bucketed: pad batches to the sizes of :func:`padded_rows`, for CUDA graphs; ``None`` does so
            on GPUs. Elsewhere padding would only cost: a single row is padded to two where there
            have been more.

    Attributes:
        backend: as given.
        num_rooms: steps whose activations are kept for the backward pass; others run once more.
    """

    def __init__(
        self,
        rule: Rule,
        *,
        weights: Callable[[], Iterable[Tensor]] = tuple,
        backend: str | Callable[..., Any] | None = "inductor",
        bucketed: bool | None = None,
    ) -> None:
        def function(x: Tensor, times: Tensor, coefficients: Tensor, noise: Tensor) -> Tensor:
            steps = [t.expand(len(x)) for t in times.unbind()]
            return rule(x, steps, coefficients.unbind(), noise)

        # PyTorch counts compilations by code object: every step that is made has one of its own.
        function.__code__ = function.__code__.replace()
        self._step = function
        if backend is not None:
            self._step = torch.compile(function, fullgraph=True, backend=backend)
        self.backend = backend
        self._weights = weights
        self._bucketed = bucketed
        self._largest = 0
        self._allowed = 0
        self._rooms: list[Room] = []
        self._turn = 0
        self._numbers: dict[object, tuple[Tensor, Tensor]] = {}
        self.num_rooms = 1

    def __call__(
        self, x: Tensor, times: Sequence[float], coefficients: Sequence[float], noise: Tensor
    ) -> Tensor:
        """The next state.

        Args:
            x: shape (B, C, H, W).
            times: the steps to evaluate the network at.
            coefficients: the sampler's numbers.
            noise: shape of x, or a scalar.
        """
        inputs = (*self._on_device(x, tuple(times), tuple(coefficients)), noise)
        rows = self._rows(x)
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _Once.apply(x, self._room(x.device), rows, *inputs)
            return y
        room = self._room(x.device)
        y = _run(room, rows, x, *inputs)
        room.clear()
        return y

    def expect(self, rows: int, num_kept: int, num_bytes: int) -> None:
        """Make room for the activations of ``num_kept`` steps of so many rows.

        A batch that is smaller than an earlier one does not change the number of rooms: graphs keep
        their memory. They hold what a step needs on its way beside what it keeps, so there may be
        fewer of them: as many as the bytes allow, and one.
        """
        if rows >= self._largest:
            self._largest = rows
            self._allowed = num_bytes
            self.num_rooms = max(1, num_kept)
            del self._rooms[self.num_rooms :]

    @property
    def holds_memory(self) -> bool:
        """Whether memory for activations stays taken between the passes."""
        return any(isinstance(room, GraphRoom) for room in self._rooms)

    def clear(self) -> None:
        """Give back all memory. Graphs are captured again when they are needed."""
        self._rooms.clear()
        self._largest = 0

    def _on_device(
        self, x: Tensor, times: tuple[float, ...], coefficients: tuple[float, ...]
    ) -> tuple[Tensor, Tensor]:
        """Kept: to bring numbers to a GPU is to wait for all that it has to do."""
        key = (times, coefficients, x.dtype, x.device)
        if key not in self._numbers:
            between = any(isinstance(t, float) for t in times)
            with torch.inference_mode(False):
                numbers = torch.tensor(coefficients, dtype=x.dtype, device=x.device)
                steps = torch.tensor(times, dtype=x.dtype if between else None, device=x.device)
                self._numbers[key] = (steps, numbers)
        return self._numbers[key]

    def _function(self, x: Tensor, times: Tensor, coefficients: Tensor, noise: Tensor) -> Tensor:
        if self.backend is None:
            return self._step(x, times, coefficients, noise)
        for rows in (x, noise) if noise.ndim else (x,):  # of any number
            torch._dynamo.maybe_mark_dynamic(rows, 0)
        # The last step, networks that do otherwise from some batch size on, three precisions: more
        # compilations than the eight that PyTorch allows.
        with torch._dynamo.config.patch(recompile_limit=_COMPILATIONS):
            return self._step(x, times, coefficients, noise)

    def _rows(self, x: Tensor) -> int:
        bucketed = x.is_cuda if self._bucketed is None else self._bucketed
        if bucketed:
            return padded_rows(len(x), self._largest)
        # PyTorch takes a size of 1 for a constant, and would compile once more for it.
        return max(len(x), min(2, self._largest))

    def _room(self, device: torch.device) -> Room:
        """The rooms take turns, so that a backward pass finds the last steps in them."""
        self._turn = (self._turn + 1) % self.num_rooms
        if self._turn >= len(self._rooms):
            largest = max((room.num_bytes for room in self._rooms), default=0)
            if (len(self._rooms) + 1) * largest <= self._allowed:
                self._rooms.append(self._new_room(device))
                self._turn = len(self._rooms) - 1
            else:
                self.num_rooms, self._turn = len(self._rooms), 0
        return self._rooms[self._turn]

    def _new_room(self, device: torch.device) -> Room:
        if device.type == "cuda":
            return GraphRoom(self._function, self._key)
        return Room(self._function)

    def _key(self) -> tuple[object, ...]:
        """What graphs are captured for: where the weights lie, and the arithmetic in force."""
        return (
            tuple(weight.data_ptr() for weight in self._weights()),
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
            float32_state(),
            torch.are_deterministic_algorithms_enabled(),
        )


class _Once(torch.autograd.Function):
    """A step in a room: differentiated there if it is still the last one, else computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        room: Room,
        rows: int,
        times: Tensor,
        coefficients: Tensor,
        noise: Tensor,
    ) -> Tensor:
        device = x.device.type
        ctx.room, ctx.rows = room, rows
        # The backward pass of a GPU runs in a thread of its own, which knows no autocast.
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(x, times, coefficients, noise)
        y = _run(room, rows, x, times, coefficients, noise)
        ctx.ticket = room.ticket
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *inputs = ctx.saved_tensors
        room: Room = ctx.room
        if room.ticket != ctx.ticket:
            device, dtype, enabled = ctx.autocast
            with torch.autocast(device, dtype, enabled=enabled):
                _run(room, ctx.rows, x, *inputs)
        zeros = gradient.new_zeros((ctx.rows - len(x), *gradient.shape[1:]))
        found = room.backward(torch.cat([gradient, zeros]))[: len(x)]
        return found, None, None, None, None, None


def _run(
    room: Room, rows: int, x: Tensor, times: Tensor, coefficients: Tensor, noise: Tensor
) -> Tensor:
    noise = _padded(noise, rows) if noise.ndim else noise
    inputs = (_padded(x, rows), times, coefficients, noise)
    with torch.inference_mode(False):  # where no tensor could be differentiated
        return room.forward(*(x.clone() if x.is_inference() else x for x in inputs))[: len(x)]


def _padded(x: Tensor, rows: int) -> Tensor:
    """More rows like the last, contiguous: another layout would be compiled for itself."""
    x = x.detach()
    return torch.cat([x, x[-1:].expand(rows - len(x), *x.shape[1:])]).contiguous()

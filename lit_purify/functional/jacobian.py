r"""The Jacobian of a purifier at an image, :math:`J = \partial f_\xi(x) / \partial x` (Sec. 4.1).

Two products make up everything: :math:`J v` moves a perturbation through the purifier, and
:math:`J^\top u` moves a sensitivity back. A pass takes many rows at once, each with its own vector,
because a purifier maps every row by itself. Scale and units are those of the images, [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_purify.types import InputError

Differentiation = Literal["forward", "reverse"]
"""How :math:`J v` is found: by forward mode, or by reverse mode twice."""

_NO_FORWARD_MODE = ("forward AD", "forward mode", "jvp")
_ONCE_ONLY = ("not implemented", "differentiate twice", "not have been used in the graph")
"""How PyTorch says that a part lacks a rule; it raises plain RuntimeErrors."""

RowFunction = Callable[[Tensor], Tensor]
"""Maps rows (R, ...) to rows (R, ...), each by itself."""


def push_forward(
    function: RowFunction,
    images: Tensor,
    tangents: Tensor,
    *,
    differentiation: Differentiation = "forward",
) -> Tensor:
    """The products J v: what becomes of small perturbations of the images, to first order.

    Args:
        function: maps each row by itself.
        images: where the Jacobian is taken, shape (R, ...).
        tangents: a vector v for every row, same shape.
        differentiation: ``forward`` takes about three evaluations and no more memory than one step
            of a chain. ``reverse`` differentiates the gradient once more, for functions with parts
            that have no rule of forward mode; the result is the same but for rounding.

    Returns:
        Shape (R, ...) of the function's output.

    Raises:
        InputError: the output does not depend differentiably on the images, or the function has a
            part without the rules that ``differentiation`` needs.

    Example:
        >>> push_forward(lambda x: x**2, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([[2., 4.]])
    """
    # The fused attention kernels know neither forward mode nor second derivatives, and compiled
    # code knows no forward mode.
    with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
        if differentiation == "forward":
            return _forward_mode(function, images, tangents)
        return _reverse_mode_twice(function, images, tangents)


def pull_back(function: RowFunction, images: Tensor, cotangents: Tensor) -> Tensor:
    """The products J^T u: gradients of <u, f(x)>.

    Args:
        function: maps each row by itself.
        images: where the Jacobian is taken, shape (R, ...).
        cotangents: a vector u for every row, of the shape of the function's output.

    Returns:
        Shape of ``images``.

    Raises:
        InputError: the output does not depend differentiably on the images.

    Example:
        >>> pull_back(lambda x: x**2, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([[2., 4.]])
    """
    return _pulling(function, images)(cotangents)


def _pulling(function: RowFunction, images: Tensor) -> Callable[[Tensor], Tensor]:
    """u -> J^T u for many u, from one evaluation of the function."""
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        output = _differentiable(function(x))

    def pull(cotangents: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(
            output, x, cotangents, retain_graph=True, materialize_grads=True
        )
        return gradient

    return pull


@dataclass(frozen=True, kw_only=True)
class JacobianOperator:
    """The Jacobian of one image as a matrix that is known by its products.

    Args:
        function: maps rows (R, C, H, W) to rows of any shape, each by itself.
        image: where the Jacobian is taken, shape (C, H, W).
        rows_per_pass: rows of one evaluation, at most; more takes more memory.
        differentiation: as in :func:`push_forward`.

    Raises:
        InputError: fewer rows than one, or another differentiation.

    Example:
        >>> operator = JacobianOperator(function=lambda x: 3 * x, image=torch.zeros(1, 1, 2))
        >>> operator.dense()
        tensor([[3., 0.],
                [0., 3.]])
    """

    function: RowFunction
    image: Tensor
    rows_per_pass: int = 64
    differentiation: Differentiation = "forward"

    def __post_init__(self) -> None:
        if self.rows_per_pass < 1:
            raise InputError(f"rows_per_pass is {self.rows_per_pass}; expected 1 or more rows")
        if self.differentiation not in get_args(Differentiation):
            raise InputError(
                f"differentiation is {self.differentiation!r}; expected forward, or reverse for a "
                "purifier without rules of forward mode"
            )

    @property
    def size(self) -> int:
        """Number of input values n = C H W."""
        return self.image.numel()

    def push(self, tangents: Tensor) -> Tensor:
        """J v for every row, (R, n) -> (R, m), in the precision of the image."""
        products = [
            push_forward(
                self.function,
                self._images(len(rows)),
                rows.view(-1, *self.image.shape),
                differentiation=self.differentiation,
            )
            for rows in torch.split(tangents.to(self.image), self.rows_per_pass)
        ]
        return torch.cat([product.flatten(1) for product in products])

    def pull(self, cotangents: Tensor) -> Tensor:
        """J^T u for every row, (R, m) -> (R, n), in the precision of the image."""
        products: list[Tensor] = []
        for rows in torch.split(cotangents.to(self.image), self.rows_per_pass):
            if not products or len(rows) != len(products[-1]):  # the last may be shorter
                pull = _pulling(self._flat, self._images(len(rows)))
            products.append(pull(rows))
        return torch.cat([product.flatten(1) for product in products])

    def dense(self) -> Tensor:
        """The whole matrix, (m, n), for square ones: row by row, ``rows_per_pass`` at a time.

        The function is evaluated once for all of them, so that a row costs a backward pass.
        """
        return self.pull(torch.eye(self.size, dtype=self.image.dtype, device=self.image.device))

    def _flat(self, images: Tensor) -> Tensor:
        return self.function(images).flatten(1)

    def _images(self, rows: int) -> Tensor:
        return self.image.expand(rows, *self.image.shape).contiguous()


def _forward_mode(function: RowFunction, images: Tensor, tangents: Tensor) -> Tensor:
    what, cure = "without a rule of forward-mode differentiation", "set differentiation: reverse"
    with _explained(_NO_FORWARD_MODE, what, cure), forward_ad.dual_level():
        # In memory of its own: the rows of an expanded image share theirs.
        dual = forward_ad.make_dual(images.contiguous(), tangents.contiguous())  # type: ignore[no-untyped-call]
        tangent: Tensor | None = forward_ad.unpack_dual(function(dual)).tangent  # type: ignore[no-untyped-call]
    if tangent is None:
        raise _no_derivative()
    return tangent


def _reverse_mode_twice(function: RowFunction, images: Tensor, tangents: Tensor) -> Tensor:
    """J^T u is linear in u, so the gradient of <J^T u, v> with respect to u is J v."""
    what = "whose gradient cannot be differentiated again"
    cure = "set differentiation: forward, or put another part in its place"
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        output = _differentiable(function(x))
        u = torch.zeros_like(output, requires_grad=True)
        with _explained(_ONCE_ONLY, what, cure):
            (pulled,) = torch.autograd.grad(output, x, u, create_graph=True, materialize_grads=True)
            (pushed,) = torch.autograd.grad(_differentiable(pulled), u, tangents)
    return pushed


@contextmanager
def _explained(words: Sequence[str], what: str, cure: str) -> Iterator[None]:
    """Say which kind of part it is where PyTorch, in one of these words, lacks a derivative."""
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        if not any(word in reason for word in words):
            raise
        raise InputError(f"the purifier has a part {what} ({reason}); {cure}") from error


def _differentiable(output: Tensor) -> Tensor:
    if not output.requires_grad:
        raise _no_derivative()
    return output


def _no_derivative() -> InputError:
    return InputError(
        "the purifier gives no derivative: its output does not depend differentiably on the "
        "images; make it differentiable, or drop what asks for its Jacobian"
    )

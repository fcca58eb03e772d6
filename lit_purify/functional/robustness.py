"""What counts as a correct answer of a classifier."""

from __future__ import annotations

from torch import Tensor


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each sample is classified correctly.

    A row with any non-finite logit counts as wrong, whatever its largest entry: an attack that
    makes the network overflow has fooled it, and ``argmax`` of nan would name a class at random.

    Args:
        logits: shape (B, K).
        labels: class indices in 0..K-1, shape (B,), an integer type.

    Returns:
        Booleans, shape (B,).

    Raises:
        ValueError: the shapes are not (B, K) and (B,).

    Example:
        >>> from torch import tensor
        >>> correct(tensor([[2.0, 1.0], [2.0, 1.0], [float("nan"), 1.0]]), tensor([0, 1, 1]))
        tensor([ True, False, False])
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (B, K) and labels (B,), got {(*logits.shape,)} and {(*labels.shape,)}"
        )
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)

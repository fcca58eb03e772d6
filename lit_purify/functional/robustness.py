"""What counts as a correct answer of a classifier."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import one_hot


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


def majority(logits: Tensor) -> Tensor:
    """Classes that most draws of a random defence vote for.

    Ties go to the class with the largest mean probability among the tied. A draw with a non-finite
    logit has no vote.

    Args:
        logits: of every draw, shape (N, B, K).

    Returns:
        Class indices, shape (B,); -1 where no draw has a vote.

    Example:
        >>> from torch import tensor
        >>> majority(tensor([[[1.0, 0.0]], [[0.0, 5.0]], [[0.1, 0.0]]]))
        tensor([0])
        >>> majority(tensor([[[1.0, 0.0]], [[0.0, 5.0]]]))
        tensor([1])
    """
    if logits.ndim != 3:
        raise ValueError(f"expected logits of every draw (N, B, K), got {(*logits.shape,)}")
    valid = logits.isfinite().all(2, keepdim=True)
    votes = one_hot(logits.argmax(2), logits.shape[2]) * valid
    probability = (logits.double().softmax(2).nan_to_num() * valid).sum(0)
    # Probabilities of N draws sum to at most N: less than one vote, once divided by N + 1.
    ranking = votes.sum(0) + probability / (len(logits) + 1)
    return ranking.argmax(1).masked_fill(~valid.any(0).squeeze(1), -1)

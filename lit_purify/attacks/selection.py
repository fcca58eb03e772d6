"""The best image of every sample among those that an attack asked about.

On a random defence an image may be right by luck and wrong by luck. N-evaluation scores each over N
randomness configurations, the same for all images, so that none is kept for its luck. They come
from a stream of their own: no gradient was taken under them, and no test uses them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_purify.attacks.gradient import passes
from lit_purify.attacks.judge import Judge
from lit_purify.attacks.losses import Goal, LossName
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FreshNoise
from lit_purify.functional import correct, majority
from lit_purify.types import InputError

JudgedBy = Literal["mean", "worst", "majority"]


class Selection:
    """Scores images, and keeps the best of every sample.

    An image that fools the defence is better than one that does not, and of two alike the one with
    the higher loss. The first to reach a score keeps its place.

    Args:
        defence: under attack.
        images: clean images, shape (B, C, H, W).
        labels: true classes, shape (B,).
        indices: dataset indices, shape (B,).
        loss: the attack's, taken without a target.
        draws: configurations that an image is asked about under where no ``evaluations`` are.
        evaluations: N, on a random defence; 0 scores by answers that the attack has anyway.
        judged_by: what counts as fooled: the share of the answers that are wrong, a wrong one among
            them, or the class that most of them vote for.
        rows_per_pass: most images in one pass, draws counted; ``None`` takes one draw at a time.
        judge: of a search in low precision.

    Attributes:
        images: the best, shape (B, C, H, W).

    Raises:
        InputError: evaluations of a random defence whose noise has no streams.
    """

    def __init__(
        self,
        defence: Defence,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        *,
        loss: LossName,
        draws: int,
        evaluations: int,
        judged_by: JudgedBy,
        rows_per_pass: int | None,
        judge: Judge | None,
    ) -> None:
        self.images = images
        self._scores = images.new_full((len(images), 2), -torch.inf, dtype=torch.float64)
        self._defence, self._labels, self._indices = defence, labels, indices
        self._goal, self._judged_by, self._judge = Goal(loss), judged_by, judge
        self._rows_per_pass = rows_per_pass
        self._seed: int | None = None
        if evaluations and not defence.deterministic:
            if not isinstance(defence.source, FreshNoise):
                raise InputError(
                    f"evaluations take draws from a stream of their own, and a "
                    f"{type(defence.source).__name__} has none; bind FreshNoise(seed, 'attack'), "
                    "or set evaluations to 0"
                )
            self._seed = defence.source.seed
        self._draws = draws if self._seed is None else evaluations

    @property
    def standing(self) -> Tensor:
        """Share of its answers by which the best image of a sample is right, (B,), float64."""
        return 1 - self._scores[:, 0].clamp(min=0)

    def ask(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits of images, without a gradient.

        Args:
            images: shape (A, C, H, W).
            rows: of the batch, which the images are of, shape (A,).

        Returns:
            Shape (N, A, K).
        """
        indices, defence, found = self._indices[rows], self._defence, []
        if self._seed is not None:
            defence = defence.bind(FreshNoise(self._seed, "selection"), indices)
        limit = self._rows_per_pass or len(images)
        for n in passes(self._draws, len(images), limit):
            with torch.no_grad():
                logits = defence(images.repeat(n, 1, 1, 1), indices, draws=n)
            found.append(logits.view(n, len(images), logits.shape[1]))
        return torch.cat(found)

    def answers(self, images: Tensor, rows: Tensor, logits: Tensor) -> Tensor:
        """What images are scored by, shape (N, A, K): the logits of the gradient's answers,
        (draws * A, K), unless there are evaluations."""
        if self._seed is not None:
            return self.ask(images, rows)
        return logits.view(self._draws, len(images), logits.shape[1])

    def fooled(self, rows: Tensor, answers: Tensor) -> Tensor:
        """Which samples the answers, (N, A, K), show to be fooled, and how far: (A,), float64."""
        labels = self._labels[rows]
        if self._judge is not None and self._defence.deterministic:
            return self._judge.confirmed[rows].double()
        if self._judged_by == "majority":
            return (majority(answers) != labels).double()
        wrong = torch.stack([~correct(each, labels) for each in answers]).double()
        return wrong.mean(0) if self._judged_by == "mean" else wrong.amax(0)

    def offer(self, images: Tensor, rows: Tensor, answers: Tensor) -> None:
        """Keep the images that are better than the best so far.

        Args:
            images: shape (A, C, H, W).
            rows: of the batch, which the images are of, shape (A,).
            answers: to these images, shape (N, A, K).
        """
        losses = self.losses(self._goal, rows, answers)
        loss = losses.amax(0) if self._judged_by == "worst" else losses.mean(0)
        score = torch.stack([self.fooled(rows, answers), loss], 1)
        (fooled, height), (before, reached) = score.unbind(1), self._scores[rows].unbind(1)
        better = (fooled > before) | ((fooled == before) & (height > reached))
        self._scores[rows[better]] = score[better]
        # Those that were given are the caller's.
        self.images = self.images.index_put((rows[better],), images[better])

    def losses(self, goal: Goal, rows: Tensor, answers: Tensor) -> Tensor:
        """Losses of every answer, (N, A), float64."""
        n, labels = len(answers), self._labels[rows]
        losses = goal(answers.flatten(0, 1), labels.repeat(n))
        # An overflow has fooled the network, whatever the loss that it leaves.
        return losses.double().nan_to_num(nan=torch.inf, posinf=torch.inf).view(n, len(labels))

"""Questions about single samples, of many searches, in common passes through the networks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lit_purify.attacks.gradient import check_differentiable
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise, StackedNoise

Tracer = Callable[..., Any]
"""What ``sys.settrace`` takes."""


class Question:
    """What a search asks a defence: about images, and then, if it likes, for gradients.

    Args:
        images: of one sample, on the CPU, (R, C, H, W); of several configurations equal parts, one
            after another.
        seeds: those of the configurations; of a defence without a purifier a single one, which
            means nothing.
        index: dataset index of the sample, shape (1,), on the device of the networks.
        follows: whether gradients may be asked for.

    Attributes:
        waits: whether it waits for an answer.
        logits: the answer, (R, K), on the CPU.
        cotangent: of the logits, on the CPU, where it is a gradient that is asked for.
        gradient: the answer to that, (R, C, H, W), on the CPU.
        shared: the pass that the logits came from, while a gradient may be asked for.
        rows: of these images in that pass.
        seen: the images as observers are told of them, on the device.
        tracer: of the thread that asks.
    """

    logits: Tensor
    gradient: Tensor
    shared: SharedPass
    rows: slice
    seen: Tensor

    def __init__(
        self, images: Tensor, seeds: Sequence[int], index: Tensor, *, follows: bool
    ) -> None:
        self.images = images
        self.seeds = seeds
        self.index = index
        self.follows = follows
        self.cotangent: Tensor | None = None
        self.waits = True
        self.tracer = sys.gettrace()

    @property
    def kind(self) -> tuple[object, ...]:
        """What questions that share a pass have in common."""
        return self.follows, self.images.shape[1:], self.images.dtype


def answer(defence: Defence, questions: Sequence[Question], most: int) -> None:
    """Answer some of the questions that searches wait with, so that passes are large.

    First those that need no graph. Then others, as long as no more than ``most`` images wait in
    graphs; then their gradients. So whoever is ahead waits for the rest.

    Args:
        defence: bound to all samples. Its observers are told of every question by itself.
        questions: one for every search.
        most: images in one pass, and in graphs; a single question may have more.
    """
    plain = [each for each in questions if not each.follows]
    rising = [each for each in questions if each.cotangent is not None]
    others = [each for each in questions if each.follows and each.cotangent is None]
    part = next(_parts(others, most), [])
    if plain:
        for part in _parts(plain, most):
            SharedPass(defence, part).give_answers(part)
    elif part and (not rising or _rows(rising) + _rows(part) <= most):
        SharedPass(defence, part).give_answers(part)
    else:
        for shared in dict.fromkeys(each.shared for each in rising):
            shared.give_gradients([each for each in rising if each.shared is shared])


def _parts(questions: Sequence[Question], most: int) -> Iterator[list[Question]]:
    """Questions of one kind each, with at most so many images, or a single question."""
    for kind in dict.fromkeys(question.kind for question in questions):
        part: list[Question] = []
        for question in questions:
            if question.kind != kind:
                continue
            if part and _rows(part) + len(question.images) > most:
                yield part
                part = []
            part.append(question)
        yield part


def _rows(questions: Sequence[Question]) -> int:
    return sum(len(question.images) for question in questions)


class SharedPass:
    """One pass through the networks.

    Args:
        defence: as for :func:`answer`.
        questions: of one kind.
    """

    def __init__(self, defence: Defence, questions: Sequence[Question]) -> None:
        self._observers = defence.observers
        follows, device = questions[0].follows, questions[0].index.device
        end = 0
        for question in questions:
            question.rows = slice(end, end := end + len(question.images))
        images = torch.cat([question.images for question in questions]).to(device)
        indices = torch.cat([each.index.expand(len(each.images)) for each in questions])
        # The networks get the rows of one configuration together: of searches in step, all rows.
        seeds = [
            seed
            for question in questions
            for seed in question.seeds
            for _ in range(len(question.images) // len(question.seeds))
        ]
        counts = Counter(seeds)
        rank = {seed: place for place, seed in enumerate(counts)}
        order = sorted(range(len(seeds)), key=lambda row: rank[seeds[row]])
        there = torch.tensor(order, device=device)
        back = there.argsort()
        self._images = images.requires_grad_(follows)
        tracer = next((each.tracer for each in questions if each.tracer), None)
        with torch.set_grad_enabled(follows), _traced(tracer):
            self._logits = _logits(defence, self._images[there], indices[there], counts)[back]
        if follows:
            check_differentiable(self._logits)

    def give_answers(self, questions: Sequence[Question]) -> None:
        """Answer the questions, and tell the observers."""
        images, logits = self._images.detach(), self._logits.detach()
        answers = logits.cpu()
        for question in questions:
            question.logits = answers[question.rows].clone()
            question.waits = False
            if question.follows:
                question.shared = self
            if self._observers:
                question.seen = images[question.rows].requires_grad_(question.follows)
                self._tell(question, logits[question.rows])

    def give_gradients(self, questions: Sequence[Question]) -> None:
        """Answer questions for gradients, of this pass's answers."""
        cotangents = torch.zeros(self._logits.shape, dtype=self._logits.dtype, device="cpu")
        for question in questions:
            assert question.cotangent is not None
            cotangents[question.rows] = question.cotangent
        given = cotangents.to(self._logits.device)
        # Some may ask again, for the gradient of another logit.
        (found,) = torch.autograd.grad(self._logits, self._images, given, retain_graph=True)
        gradients = found.cpu()
        for question in questions:
            question.gradient, question.cotangent = gradients[question.rows].clone(), None
            question.waits = False
            if self._observers:
                torch.autograd.backward(question.seen, found[question.rows])
                question.seen.grad = None  # only their hooks were to see it

    def _tell(self, question: Question, logits: Tensor) -> None:
        indices = question.index.expand(len(logits))
        with torch.set_grad_enabled(question.follows):
            for observer in self._observers:
                observer(question.seen, logits, indices, len(question.seeds))


@contextmanager
def _traced(tracer: Tracer | None) -> Iterator[None]:
    """Let the tracer of a search, whose thread does not see the pass, see it all the same."""
    before = sys.gettrace()
    sys.settrace(tracer or before)
    try:
        yield
    finally:
        sys.settrace(before)


def _logits(defence: Defence, images: Tensor, indices: Tensor, counts: Counter[int]) -> Tensor:
    """Logits of images, so many under the configuration of each seed, one after the other."""
    if defence.purifier is None:
        return defence.classifier(images)
    source = defence.source
    noises = [
        # With its draws, which are kept.
        source if isinstance(source, FixedNoise) and source.seed == seed else FixedNoise(seed)
        for seed in counts
    ]
    noise = noises[0] if len(noises) == 1 else StackedNoise(noises, list(counts.values()))
    return defence.purifier.answer(images, noise, indices, defence.classifier)[1]

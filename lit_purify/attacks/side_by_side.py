"""Searches that each know of a single sample, side by side: what they ask is answered together.

Most attacks of other libraries are only sound for one sample at a time: they draw from the global
generators, and look at their whole batch to decide when to stop. But a GPU idles over one sample.
Here every search has a thread and a random state of its own. It runs while no other does, and waits
where it asks the defence something; once all of them wait, what they ask goes through the networks
in common passes. A search cannot tell that it is not alone.

The searches compute on the CPU, wherever the networks are.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Semaphore, Thread
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_purify.attacks.global_randomness import GlobalRandomness, own_randomness, seed_all
from lit_purify.attacks.gradient import check_differentiable
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise, NoiseConfiguration, StackedNoise
from lit_purify.diffusion.purifier import Purifier

T = TypeVar("T")


def side_by_side(
    work: Callable[[int, Defence], T], defence: Defence, indices: Tensor, seeds: Sequence[int]
) -> list[T]:
    """Run a search for every sample of a batch.

    Of every sample the k-th pass meets the k-th configuration of the defence's randomness, whatever
    the others ask. A pass takes as many images as there are samples, or those of one question.

    Args:
        work: the search: (row of the sample in the batch, its defence) -> what it finds. The
            defence takes images on the CPU, as many as one likes, all of them of the sample. Its
            gradients are constants.
        defence: bound to these samples, or to more. Its observers are told of every question by
            itself.
        indices: dataset indices, shape (B,).
        seeds: of the global generators (the CPU's of torch), one for every search. What they
            were before is put back.

    Returns:
        What each search found.

    Raises:
        Exception: of a search, or of a pass. The other searches are ended.
    """
    bound = defence.rewound(indices)
    searches = [
        _Search(work, row, seed, bound, index)
        for row, (seed, index) in enumerate(zip(seeds, torch.split(indices, 1), strict=True))
    ]
    with own_randomness(seeds[0] if seeds else 0), torch.enable_grad():
        networks = GlobalRandomness()  # whose own draws, if they make any, go on
        try:
            waiting = searches
            while waiting := [search for search in waiting if search.advance()]:
                networks.restore()
                _answer(bound, [search.question for search in waiting], len(indices))
                networks = GlobalRandomness()
        finally:
            for search in searches:
                search.end()
    return [search.found for search in searches]


class _Question:
    """What a search asks: about images, and then, if it likes, for gradients.

    Attributes:
        images: on the CPU, (R, C, H, W); of several configurations equal parts, one after another.
        noises: these configurations; ``None`` where there is no purifier.
        index: dataset index of the sample, shape (1,), on the device of the networks.
        follows: whether gradients may be asked for.
        logits: the answer, (R, K), on the CPU.
        cotangent: of the logits, where it is a gradient that is asked for, on the CPU.
        gradient: the answer to that, (R, C, H, W), on the CPU.
        answered_in: the pass that the answer came from.
        rows: of these images in the pass, (R,).
        seen: the images as observers are told of them, on the device.
    """

    logits: Tensor
    gradient: Tensor
    answered_in: _Pass
    rows: Tensor
    seen: Tensor

    def __init__(
        self,
        images: Tensor,
        noises: Sequence[NoiseConfiguration | None],
        index: Tensor,
        follows: bool,
    ) -> None:
        self.images = images
        self.noises = noises
        self.index = index
        self.follows = follows
        self.cotangent: Tensor | None = None

    def seeds(self) -> list[int]:
        """Seed of the configuration of every image, 0 where there is no purifier."""
        size = len(self.images) // len(self.noises)
        seeds = [noise.seed if isinstance(noise, FixedNoise) else 0 for noise in self.noises]
        return [seed for seed in seeds for _ in range(size)]


def _answer(defence: Defence, questions: Sequence[_Question], most: int) -> None:
    """Answer the questions about images; only where there are none, those for gradients.

    So whoever is ahead waits for the others, and passes stay large.
    """
    asked = [question for question in questions if question.cotangent is None]
    if asked:
        kinds: dict[object, list[_Question]] = {}
        for question in asked:
            kinds.setdefault((question.follows, question.images.shape[1:]), []).append(question)
        for kind in kinds.values():
            for together in _parted(kind, most):
                _Pass(defence, together).give_answers(together)
    else:
        for each in dict.fromkeys(question.answered_in for question in questions):
            each.give_gradients([q for q in questions if q.answered_in is each])


def _parted(questions: Sequence[_Question], most: int) -> Iterator[list[_Question]]:
    """Questions in parts of at most so many images, or of a single question."""
    part: list[_Question] = []
    rows = 0
    for question in questions:
        if part and rows + len(question.images) > most:
            yield part
            part, rows = [], 0
        part.append(question)
        rows += len(question.images)
    yield part


class _Pass:
    """A pass through the networks; its graph is kept as long as a question that it answered."""

    def __init__(self, defence: Defence, questions: Sequence[_Question]) -> None:
        self.observers = defence.observers
        follows, device = questions[0].follows, questions[0].index.device
        # The rows of one configuration stand together: of searches in step, all are in the same.
        seeds = [seed for question in questions for seed in question.seeds()]
        counts = Counter(seeds)
        rank = {seed: place for place, seed in enumerate(counts)}
        order = torch.tensor(sorted(range(len(seeds)), key=lambda row: rank[seeds[row]]))
        sizes = [len(question.images) for question in questions]
        for question, rows in zip(questions, torch.split(order.argsort(), sizes), strict=True):
            question.rows = rows
        images = torch.cat([question.images for question in questions])[order]
        indices = torch.cat([question.index.expand(len(question.rows)) for question in questions])
        self.images = images.to(device).requires_grad_(follows)
        with torch.set_grad_enabled(follows):
            self.logits = _logits(defence, self.images, indices[order.to(device)], counts)
        if follows:
            check_differentiable(self.logits)

    def give_answers(self, questions: Sequence[_Question]) -> None:
        """Answer the questions, and tell the observers."""
        images, logits = self.images.detach(), self.logits.detach()
        answers = logits.cpu()
        for question in questions:
            question.answered_in = self
            question.logits = answers[question.rows]
            rows = question.rows.to(images.device)
            question.seen = images[rows].requires_grad_(question.follows)
            indices = question.index.expand(len(rows))
            with torch.set_grad_enabled(question.follows):
                for observer in self.observers:
                    observer(question.seen, logits[rows], indices, len(question.noises))

    def give_gradients(self, questions: Sequence[_Question]) -> None:
        """Answer questions for gradients, of this pass's answers."""
        cotangents = torch.zeros(self.logits.shape, dtype=self.logits.dtype)
        for question in questions:
            assert question.cotangent is not None
            cotangents[question.rows] = question.cotangent
        given = cotangents.to(self.logits.device)
        # A search may ask again, for the gradient of another logit.
        (found,) = torch.autograd.grad(self.logits, self.images, given, retain_graph=True)
        gradients = found.cpu()
        for question in questions:
            question.gradient = gradients[question.rows]
            question.cotangent = None
            torch.autograd.backward(question.seen, found[question.rows.to(found.device)])
            question.seen.grad = None  # that was for the observers


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


class _Search(Thread, Generic[T]):
    """A search, which runs only while :meth:`advance` is called.

    Attributes:
        question: what it waits for an answer to.
        found: what it found, once it is at its end.
    """

    question: _Question
    found: T

    def __init__(
        self,
        work: Callable[[int, Defence], T],
        row: int,
        seed: int,
        defence: Defence,
        index: Tensor,
    ) -> None:
        super().__init__(daemon=True)
        asking = _Asking(self.ask, index)
        purifier = None if defence.purifier is None else asking
        alone = Defence(asking.classify, purifier, copy.copy(defence.source), index.cpu())
        self._work = partial(work, row, alone)
        self._seed = seed
        self._randomness: GlobalRandomness | None = None
        self._error: BaseException | None = None
        self._given_up = False
        self._go, self._back = Semaphore(0), Semaphore(0)

    def advance(self) -> bool:
        """Let it run on until it asks again; ``False`` where it comes to its end instead."""
        if self._randomness is None:
            seed_all(self._seed)
            self.start()
        elif self.question.cotangent is not None:
            return True  # not answered yet
        else:
            self._randomness.restore()
        self._go.release()
        self._back.acquire()
        self._randomness = GlobalRandomness()
        if self._error is not None:
            raise self._error
        return not hasattr(self, "found")

    def end(self) -> None:
        """End it, wherever it is."""
        self._given_up = True
        if self.ident is not None:
            self._go.release()
            self.join()

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self._given_up:
                self.found = self._work()
        except BaseException as error:  # raised to who waits
            self._error = error
        finally:
            vars(self).pop("question", None)  # it may hold a graph
            self._back.release()

    def ask(self, question: _Question) -> None:
        """Wait for an answer; called by the search."""
        self._check()
        self.question = question
        self._back.release()
        self._go.acquire()
        self._check()

    def _check(self) -> None:
        if self._given_up:
            raise _GivenUp


class _GivenUp(BaseException):
    """Ends a search through the library's code."""


class _Asking(Purifier):
    """Stands for the networks in the defence of one search, and asks whatever it is asked."""

    def __init__(self, ask: Callable[[_Question], None], index: Tensor) -> None:
        super().__init__()
        self._ask = ask
        self._index = index

    def answer(
        self,
        images: Tensor,
        noise: NoiseConfiguration,
        indices: Tensor,
        classifier: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        noises = noise.configurations if isinstance(noise, StackedNoise) else [noise]
        return images, self._logits(images, noises)

    def classify(self, images: Tensor) -> Tensor:
        return self._logits(images, [None])

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        raise NotImplementedError("a search asks for logits, not for purified images")

    def _logits(self, images: Tensor, noises: Sequence[NoiseConfiguration | None]) -> Tensor:
        follows = torch.is_grad_enabled() and images.requires_grad
        question = _Question(images.detach(), noises, self._index, follows)
        logits: Tensor = _Ask.apply(images, question, self._ask)
        return logits


class _Ask(torch.autograd.Function):
    """A question and what comes back, for the graph of who asks."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, question: _Question, ask: Callable[[_Question], None]
    ) -> Tensor:
        ctx.question, ctx.ask = question, ask
        ask(question)
        logits = question.logits
        del question.logits  # it leads to this graph, which leads to the question
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        ctx.question.cotangent = cotangent
        ctx.ask(ctx.question)
        return ctx.question.gradient, None, None

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
from collections.abc import Callable, Sequence
from functools import partial
from threading import Semaphore, Thread
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_purify.attacks.global_randomness import GlobalRandomness, own_randomness, seed_all
from lit_purify.attacks.shared_pass import Question, answer
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
    with torch.inference_mode(False), torch.enable_grad(), own_randomness(seeds[0] if seeds else 0):
        bound = defence.rewound(indices)
        searches = [
            _Search(work, row, seed, bound, index)
            for row, (seed, index) in enumerate(zip(seeds, indices.view(-1, 1), strict=True))
        ]
        networks = GlobalRandomness()  # whose own draws, if they make any, go on
        threads = torch.get_num_threads()
        waiting = searches
        try:
            while True:
                torch.set_num_threads(1)  # or every search would start a team of its own
                waiting = [search for search in waiting if search.advance()]
                torch.set_num_threads(threads)
                if not waiting:
                    return [search.found for search in searches]
                networks.restore()
                answer(bound, [search.question for search in waiting], len(indices))
                networks = GlobalRandomness()
        finally:
            torch.set_num_threads(threads)
            _end(searches)


class _Search(Thread, Generic[T]):
    """A search, which runs only while :meth:`advance` is called.

    Attributes:
        question: what it waits for an answer to.
        found: what it found, once it is at its end.
        given_up: whether it is to end at its next question.
    """

    question: Question
    found: T

    def __init__(
        self,
        work: Callable[[int, Defence], T],
        row: int,
        seed: int,
        defence: Defence,
        index: Tensor,
    ) -> None:
        super().__init__(daemon=True, name=f"search of sample {index.item()}")
        asking = _Asking(self._ask, index)
        purifier = None if defence.purifier is None else asking
        alone = Defence(asking.classify, purifier, copy.copy(defence.source), index.cpu())
        self._work = partial(work, row, alone)
        self._seed = seed
        self._randomness: GlobalRandomness | None = None
        self._error: BaseException | None = None
        self.given_up = False
        self._go, self._back = Semaphore(0), Semaphore(0)

    def advance(self) -> bool:
        """Let it run on until it asks again; ``False`` where it comes to its end instead."""
        if self._randomness is None:
            seed_all(self._seed)
            self.start()
        elif self.question.waits:
            return True
        else:
            self._randomness.restore()
        self._go.release()
        self._back.acquire()
        self._randomness = GlobalRandomness()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback leads back here
        return not hasattr(self, "found")

    def release(self) -> None:
        """Let it find that it is given up, wherever it is."""
        self.given_up = True
        self._go.release()

    def run(self) -> None:
        self._go.acquire()
        try:
            if not self.given_up:
                self.found = self._work()
        except _GivenUp:
            pass
        except BaseException as error:  # raised to who waits
            self._error = error
        finally:
            # They lead back here, and to draws and graphs.
            vars(self).pop("question", None)
            del self._work
            self._back.release()

    def _ask(self, question: Question) -> None:
        """Wait for an answer; called by the search."""
        if not self.given_up:
            self.question = question
            self._back.release()
            self._go.acquire()
        if self.given_up:
            raise _GivenUp


def _end(searches: Sequence[_Search[T]]) -> None:
    """End searches, each at its next question."""
    for search in searches:
        search.release()
    for search in searches:
        if search.ident is not None:
            search.join()


class _GivenUp(BaseException):
    """Ends a search through the library's code."""


class _Asking(Purifier):
    """Stands for the networks in the defence of one search, and asks whatever it is asked."""

    def __init__(self, ask: Callable[[Question], None], index: Tensor) -> None:
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
        return images, self._logits(images, [cast("FixedNoise", each).seed for each in noises])

    def classify(self, images: Tensor) -> Tensor:
        return self._logits(images, [0])

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        raise NotImplementedError("a search asks for logits, not for purified images")

    def _logits(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        follows = torch.is_grad_enabled() and images.requires_grad
        question = Question(images.detach(), seeds, self._index, follows=follows)
        logits: Tensor = _Ask.apply(images, question, self._ask)
        return logits


class _Ask(torch.autograd.Function):
    """A question and what comes back, for the graph of who asks."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, question: Question, ask: Callable[[Question], None]
    ) -> Tensor:
        ask(question)
        logits = question.logits
        del question.logits  # it leads to this graph, which leads to the question
        if question.follows:
            # What is saved goes with the graph: after a gradient, unless more may follow.
            saved: Any = torch.empty(0)
            saved.shared = question.shared
            del question.shared
            ctx.save_for_backward(saved)
        ctx.question, ctx.ask = question, ask
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        question, (saved,) = ctx.question, ctx.saved_tensors
        question.cotangent, question.shared, question.waits = cotangent, saved.shared, True
        ctx.ask(question)
        del question.shared
        return question.gradient, None, None

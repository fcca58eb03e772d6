"""Attacks of other libraries, made to keep this project's promises.

Such an attack can only call ``model(x)``. It draws from the global random generators and may stop
on conditions over its whole batch. Here it is given one sample at a time, under a generator state
that is keyed by the dataset index and put back afterwards, so a sample's result depends on nothing
but the sample.
"""

from __future__ import annotations

import copy
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from lit_purify.attacks.base import Attack
from lit_purify.attacks.target import Target, check_differentiable
from lit_purify.diffusion.noise import derive_seed
from lit_purify.functional import correct


class Fooled(Exception):
    """Ends an attack through the library's code: this image fools the defence.

    Args:
        image: shape (1, C, H, W), inside the ball.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__("the defence is fooled")
        self.image = image


class OneSample(nn.Module):
    """A defence as a module of one sample: what it is asked, in batches of any size, is about that.

    A gradient that is not a number becomes 0 and an infinite one finite, as libraries would carry
    either into the image; the sample's findings say so.

    Args:
        target: the defence.
        index: dataset index of the sample, shape (1,).
        on_query: called with (images, logits), both detached, after every query.
    """

    def __init__(
        self,
        target: Target,
        index: Tensor,
        on_query: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        self.target = target
        self.index = index
        self.on_query = on_query
        self.findings: set[str] = set()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), float32, of images (N, C, H, W) of any floating dtype."""
        x = images.float()
        differentiated = torch.is_grad_enabled() and x.requires_grad
        if differentiated:
            x = x.view_as(x)  # the hook must not outlive this query
            x.register_hook(self._finite)  # type: ignore[no-untyped-call]
        logits = self.target(x, self.index.expand(len(x)))
        if differentiated:
            check_differentiable(logits)
        if self.on_query is not None:
            self.on_query(x.detach(), logits.detach())
        return logits.float().clone()  # libraries write into what they are given

    def _finite(self, gradient: Tensor) -> Tensor:
        if not gradient.isfinite().all():
            self.findings.add("gradient_not_finite")
        return gradient.nan_to_num()


class ExternalAttack(Attack):
    """Base of the adapters: a library's attack is run sample by sample.

    On a deterministic defence a sample that is misclassified from the start is returned unchanged,
    after one query. With ``eps`` 0 every sample is, after none.

    Args:
        eps: radius of the ball, a number or a fraction such as ``"8/255"``.
        early_stop: on deterministic defences, end the attack on a sample at the first query inside
            the ball that is misclassified, and return that image.

    Attributes:
        library: names the library and its stream of random numbers.
        finding_names: ``not_finite``: the library returned an image with pixels that are no
            numbers, and the clean image took its place; ``gradient_not_finite``: so was a
            gradient, whose nan entries were taken as 0; and those of the adapter.
    """

    library: str
    finding_names: tuple[str, ...] = ("not_finite", "gradient_not_finite")

    def __init__(self, *, eps: float | str, early_stop: bool) -> None:
        super().__init__(eps=eps)
        self.early_stop = early_stop
        self._findings: dict[str, Tensor] = {}

    @abstractmethod
    def search(self, network: OneSample, image: Tensor, label: Tensor, seed: int) -> Tensor:
        """Run the library's attack on a sample; the caller projects what comes back.

        Args:
            network: the defence, images (N, C, H, W) -> logits (N, K). What is found out about the
                sample is added to its ``findings``.
            image: the clean image, shape (1, C, H, W), float32.
            label: its class, shape (1,).
            seed: of the sample; the global generators are seeded with it already.

        Returns:
            Shape (1, C, H, W).
        """

    @property
    def findings(self) -> dict[str, Tensor]:
        return self._findings

    def perturb(
        self, model: Target, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        none = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self._findings = {name: none.clone() for name in self.finding_names}
        found = images.clone()
        if self.eps == 0:
            return found
        for row, index in enumerate(indices.tolist()):
            network = OneSample(model, indices[row : row + 1])
            own_seed = derive_seed(seed, self.library, index)
            with _same_noise(model), own_randomness(own_seed), torch.enable_grad():
                found[row] = self._attack(
                    network, images[row : row + 1], labels[row : row + 1], own_seed
                )[0]
            for name in network.findings:
                self._findings[name][row] = True
        return found

    def _attack(self, network: OneSample, image: Tensor, label: Tensor, seed: int) -> Tensor:
        if network.target.deterministic:
            with torch.no_grad():
                if not correct(network(image), label).item():
                    return image
            if self.early_stop:
                network.on_query = lambda x, logits: self._stop(network, x, logits, image, label)
        try:
            found = self.search(network, image.clone(), label.clone(), seed).detach()
        except Fooled as success:
            return success.image
        if not found.isfinite().all():
            network.findings.add("not_finite")
            return image
        return found

    def _stop(
        self, network: OneSample, x: Tensor, logits: Tensor, image: Tensor, label: Tensor
    ) -> None:
        """Raise :class:`Fooled` if an image of a query lies in the ball and is misclassified."""
        wrong = ~correct(logits, label.expand(len(x))) & self.admits(x, image.expand_as(x))
        for candidate in x[wrong]:
            # Rounding may have put it just outside the ball: what counts is what is returned.
            inside = self.project(candidate.unsqueeze(0), image)
            with torch.no_grad():
                if not correct(network.target(inside, network.index), label).item():
                    raise Fooled(inside)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python, and put their states back after."""
    # All devices, as torch.manual_seed seeds all. A CUDA that is not in use is not woken up.
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if cuda else ()
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the libraries use it
    with torch.random.fork_rng(devices=list(devices)):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _same_noise(model: Target) -> Iterator[None]:
    """Let every sample meet the noise source as it stood before the batch.

    A fresh source counts its passes: the k-th query of a sample must meet the k-th configuration,
    whichever samples were attacked before it.
    """
    source = model.noise
    if not model.deterministic:
        model.noise = copy.copy(source)
    try:
        yield
    finally:
        model.noise = source

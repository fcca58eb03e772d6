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
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from lit_purify.attacks.base import Attack
from lit_purify.attacks.gradient import check_differentiable
from lit_purify.defence import Defence, Observer
from lit_purify.diffusion.seeds import derive_seed
from lit_purify.functional import correct


class Fooled(Exception):
    """Ends an attack through the library's code: this image fools the defence.

    Args:
        image: shape (1, C, H, W), inside the ball.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__("the defence is fooled")
        self.image = image


class ExternalModel(nn.Module):
    """A defence as a library is given it: any floating dtype in, float32 logits of its own out.

    A gradient that is not a number becomes 0 and an infinite one finite, as libraries would carry
    either into the image; the findings say so.

    Args:
        defence: bound to a single sample: what it is asked, in batches of any size, is about that.
    """

    def __init__(self, defence: Defence) -> None:
        super().__init__()
        self.defence = defence.observed(_refuse_without_gradient)
        self.findings: set[str] = set()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), float32, of images (N, C, H, W) of any floating dtype."""
        x = images.float()
        if torch.is_grad_enabled() and x.requires_grad:
            x = x.view_as(x)  # the hook must not outlive this query
            x.register_hook(self._finite)  # type: ignore[no-untyped-call]
        return self.defence(x).float().clone()

    def _finite(self, gradient: Tensor) -> Tensor:
        if not gradient.isfinite().all():
            self.findings.add("gradient_not_finite")
        return gradient.nan_to_num().contiguous()  # libraries take views of it


def _refuse_without_gradient(images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
    if torch.is_grad_enabled() and images.requires_grad:
        check_differentiable(logits)


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

    @abstractmethod
    def search(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
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

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        none = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.findings = {name: none.clone() for name in self.finding_names}
        found = images.clone()
        if self.eps == 0:
            return found
        for row, index in enumerate(indices.tolist()):
            one = slice(row, row + 1)
            # A fresh source counts its passes. Of a copy the k-th query of every sample meets the
            # k-th configuration, whichever samples were attacked before it.
            network = ExternalModel(defence.bind(copy.copy(defence.source), indices[one]))
            own_seed = derive_seed(seed, self.library, index)
            with own_randomness(own_seed), torch.enable_grad():
                found[one] = self._attack(network, images[one], labels[one], own_seed)
            for name in network.findings:
                self.findings[name][row] = True
        return found

    def _attack(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
        if network.defence.deterministic:
            with torch.no_grad():
                if not correct(network(image), label).item():
                    return image
            if self.early_stop:
                stop = self._stop(network.defence, image, label)
                network.defence = network.defence.observed(stop)
        try:
            found = self.search(network, image.clone(), label.clone(), seed).detach()
        except Fooled as success:
            return success.image
        if not found.isfinite().all():
            network.findings.add("not_finite")
            return image
        return found

    def _stop(self, defence: Defence, image: Tensor, label: Tensor) -> Observer:
        """Raises :class:`Fooled` if an image of a query lies in the ball and is misclassified."""

        def stop(images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
            images = images.detach()
            wrong = ~correct(logits, label.expand(len(images)))
            wrong &= self.admits(images, image.expand_as(images))
            for candidate in images[wrong]:
                # Rounding may have put it just outside the ball: what counts is what is returned.
                inside = self.project(candidate.unsqueeze(0), image)
                with torch.no_grad():
                    if not correct(defence(inside), label).item():
                        raise Fooled(inside)

        return stop


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

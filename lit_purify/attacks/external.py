"""Attacks of other libraries, made to keep this project's promises.

Such an attack can only call ``model(x)``. It draws from the global random generators and may stop
on conditions over its whole batch. Here it is given one sample at a time, under a generator state
that is keyed by the dataset index and put back afterwards, so a sample's result depends on nothing
but the sample. An attack that treats the samples of a batch independently of each other is given
the batch: each of its samples gets what it would get alone.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch
from torch import Tensor, nn

from lit_purify.attacks.base import Attack
from lit_purify.attacks.gradient import check_differentiable
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import rows_of
from lit_purify.diffusion.seeds import derive_seed
from lit_purify.functional import correct


class Fooled(Exception):
    """Ends an attack through the library's code: the images of all samples fool the defence."""


class ExternalModel(nn.Module):
    """A defence as a library is given it: any floating dtype in, float32 logits of its own out.

    A gradient that is not a number becomes 0 and an infinite one finite, as libraries would carry
    either into the image; the findings say so.

    Args:
        defence: bound to a single sample, about which queries of any size are, or to several, of
            all of which in their order every query is.

    Attributes:
        samples: dataset indices of what is under attack, shape (B,).
        findings: name -> of which samples it was found out, shape (B,), bool.
    """

    def __init__(self, defence: Defence) -> None:
        super().__init__()
        assert defence.indices is not None  # bound
        self.samples = defence.indices
        self.defence = defence.observed(_refuse_without_gradient)
        self.findings: dict[str, Tensor] = {}
        self.eval()

    def forward(self, images: Tensor, draws: int = 1) -> Tensor:
        """Logits (draws * N, K), float32, of images (N, C, H, W) of any floating dtype.

        With several draws every one answers for all images, one draw after the other.
        """
        x = images.float()
        if draws > 1:
            x = x.repeat(draws, 1, 1, 1)
        if torch.is_grad_enabled() and x.requires_grad:
            x = x.view_as(x)  # the hook must not outlive this query
            x.register_hook(self._finite)  # type: ignore[no-untyped-call]
        return self.defence(x, draws=draws).float().clone()

    def note(self, finding: str, found: Tensor | bool = True) -> None:
        """Add a finding about some of the samples, shape (B,), bool, or about all of them."""
        none = torch.zeros(len(self.samples), dtype=torch.bool)
        self.findings[finding] = self.findings.get(finding, none) | torch.as_tensor(found).cpu()

    def _finite(self, gradient: Tensor) -> Tensor:
        if not gradient.isfinite().all():
            broken = ~gradient.isfinite().flatten(1).all(1)
            self.note("gradient_not_finite", broken.view(-1, len(self.samples)).any(0))
        return gradient.nan_to_num().contiguous()  # libraries take views of it


def _refuse_without_gradient(images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
    if torch.is_grad_enabled() and images.requires_grad:
        check_differentiable(logits)


class ExternalAttack(Attack):
    """Base of the adapters: a library's attack is run sample by sample, or on a batch of them.

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

    def batched(self, deterministic: bool) -> bool:
        """Whether the attack gives every sample of a batch what it would give it alone.

        Args:
            deterministic: whether the defence is.
        """
        return False

    @abstractmethod
    def search(
        self, network: ExternalModel, images: Tensor, labels: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Run the library's attack; the caller projects what comes back.

        Args:
            network: the defence, images (N, C, H, W) -> logits (N, K). What is found out about the
                samples is noted there.
            images: clean images, shape (B, C, H, W), float32: a single one unless :meth:`batched`.
            labels: their classes, shape (B,).
            seeds: of every sample; with that of a single one the global generators are seeded
                already.

        Returns:
            Shape (B, C, H, W).
        """

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        none = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.findings = {name: none.clone() for name in self.finding_names}
        found = images.clone()
        if self.eps == 0 or not len(images):
            return found
        every = torch.arange(len(images), device=images.device)
        together = len(images) if self.batched(defence.deterministic) else 1
        for rows in torch.split(every, together):
            seeds = [derive_seed(seed, self.library, index) for index in indices[rows].tolist()]
            with own_randomness(seeds[0]), torch.enable_grad():
                # Of every sample the k-th query meets the k-th draw, whatever was asked before it.
                network = ExternalModel(defence.rewound(indices[rows]))
                if defence.deterministic:
                    with torch.no_grad():
                        right = correct(network(images[rows]), labels[rows])
                    if not right.all():
                        rows, seeds = (
                            rows[right],
                            [seeds[k] for k in right.nonzero()[:, 0].tolist()],
                        )
                        network = ExternalModel(defence.rewound(indices[rows]))
                if seeds:
                    found[rows] = self._attack(network, images[rows], labels[rows], seeds)
            for name, noted in network.findings.items():
                self.findings[name][rows] = noted.to(none.device)
        return found

    def _attack(
        self, network: ExternalModel, images: Tensor, labels: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        stop = _Stop(self, network.defence, images, labels)
        if network.defence.deterministic and self.early_stop:
            network.defence = network.defence.observed(stop)
        found = images
        with suppress(Fooled):
            found = self.search(network, images.clone(), labels.clone(), seeds).detach()
        broken = ~found.isfinite().flatten(1).all(1) & ~stop.fooled
        if broken.any():
            network.note("not_finite", broken)
        kept = torch.where(_wide(broken), images, found)
        return torch.where(_wide(stop.fooled), stop.found, kept)


class _Stop:
    """Keeps of every sample the first image of a query that lies in the ball and is misclassified.

    Raises :class:`Fooled` once it has one of all of them.

    Args:
        attack: whose ball it is.
        defence: a deterministic one, bound to the samples.
        images: clean images, shape (B, C, H, W).
        labels: their classes, shape (B,).

    Attributes:
        found: the images, shape (B, C, H, W).
        fooled: which samples have one, shape (B,), bool.
    """

    def __init__(self, attack: Attack, defence: Defence, images: Tensor, labels: Tensor) -> None:
        assert defence.indices is not None  # bound
        self.attack = attack
        self.defence = defence
        self.images = images
        self.labels = labels
        self.found = images.clone()
        self.fooled = torch.zeros_like(labels, dtype=torch.bool)

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        """An :data:`~lit_purify.defence.Observer`."""
        assert self.defence.indices is not None
        images, rows = images.detach(), rows_of(indices, self.defence.indices).to(images.device)
        wrong = ~correct(logits, self.labels[rows]) & ~self.fooled[rows]
        wrong &= self.attack.admits(images, self.images[rows])
        for query in wrong.nonzero()[:, 0].tolist():
            row = rows[query : query + 1]
            if self.fooled[row]:
                continue
            # Rounding may have put it just outside the ball: what counts is what is returned.
            inside = self.attack.project(images[query : query + 1], self.images[row])
            with torch.no_grad():
                logits = self.defence(inside, indices[query : query + 1])
            if not correct(logits, self.labels[row]).item():
                self.found[row], self.fooled[row] = inside, True
        if self.fooled.all():
            raise Fooled


def _wide(samples: Tensor) -> Tensor:
    """One entry a sample, shape (B,), as (B, 1, 1, 1)."""
    return samples.view(-1, 1, 1, 1)


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

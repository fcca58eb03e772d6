"""Attacks of other libraries, made to keep this project's promises.

Such an attack can only call ``model(x)``. It draws from the global random generators and may stop
on conditions over its whole batch. Here it is given one sample at a time, under a generator state
that is keyed by the dataset index and put back afterwards, so a sample's result depends on nothing
but the sample. The samples of a batch are searched side by side, and what they ask is answered in
common (:mod:`~lit_purify.attacks.side_by_side`).
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext, suppress

import torch
from torch import Tensor, nn

from lit_purify.attacks.base import Attack
from lit_purify.attacks.side_by_side import side_by_side
from lit_purify.defence import Defence
from lit_purify.diffusion.seeds import derive_seed
from lit_purify.functional import correct


class Fooled(Exception):
    """Ends an attack through the library's code: an image fools the defence."""


class ExternalModel(nn.Module):
    """A defence as a library is given it: any floating dtype in, float32 logits of its own out.

    A gradient that is not a number becomes 0 and an infinite one finite, as libraries would carry
    either into the image; the findings say so.

    Args:
        defence: bound to a single sample, about which queries of any size are.

    Attributes:
        sample: dataset index of what is under attack, shape (1,).
        findings: what was found out about it.
    """

    def __init__(self, defence: Defence) -> None:
        super().__init__()
        assert defence.indices is not None  # bound
        self.sample = defence.indices
        self.defence = defence
        self.findings: set[str] = set()
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

    def note(self, finding: str) -> None:
        """Add a finding about the sample."""
        self.findings.add(finding)

    def _finite(self, gradient: Tensor) -> Tensor:
        if not gradient.isfinite().all():
            self.note("gradient_not_finite")
        return gradient.nan_to_num().contiguous()  # libraries take views of it


class ExternalAttack(Attack):
    """Base of the adapters: a library's attack is run for every sample by itself.

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
                sample is noted there.
            image: the clean image, shape (1, C, H, W), float32, on the CPU.
            label: its class, shape (1,).
            seed: with which the global generators have been seeded.

        Returns:
            Shape (1, C, H, W).
        """

    def surroundings(self) -> AbstractContextManager[object]:
        """Entered once while the library runs, for all samples of a batch."""
        return nullcontext()

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        none = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.findings = {name: none.clone() for name in self.finding_names}
        if self.eps == 0 or not len(images):
            return images.clone()
        seeds = [derive_seed(seed, self.library, index) for index in indices.tolist()]
        with torch.inference_mode(False):  # what one made cannot be part of a graph
            batch = [torch.split(column.cpu().clone(), 1) for column in (images, labels)]

        def attack(row: int, alone: Defence) -> tuple[Tensor, set[str]]:
            network = ExternalModel(alone)
            image, label = (column[row] for column in batch)
            return self._attack(network, image, label, seeds[row]), network.findings

        with self.surroundings():
            attacked = side_by_side(attack, defence, indices, seeds)
        for row, (_, findings) in enumerate(attacked):
            for name in findings:
                self.findings[name][row] = True
        return torch.cat([image for image, _ in attacked]).to(images)

    def _attack(self, network: ExternalModel, image: Tensor, label: Tensor, seed: int) -> Tensor:
        if network.defence.deterministic:
            with torch.no_grad():
                if not correct(network(image), label):
                    return image
        stop = _Stop(self, network.defence, image, label)
        if network.defence.deterministic and self.early_stop:
            network.defence = network.defence.observed(stop)
        with suppress(Fooled):
            found = self.search(network, image.clone(), label.clone(), seed).detach()
            if found.isfinite().all():
                return found
            network.note("not_finite")
            return image
        return stop.found


class _Stop:
    """Raises :class:`Fooled` at the first image of a query that lies in the ball and fools.

    Args:
        attack: whose ball it is.
        defence: a deterministic one, bound to the sample.
        image: clean image, shape (1, C, H, W).
        label: its class, shape (1,).

    Attributes:
        found: the image that fooled, shape (1, C, H, W).
    """

    def __init__(self, attack: Attack, defence: Defence, image: Tensor, label: Tensor) -> None:
        self.attack = attack
        self.defence = defence
        self.image = image
        self.label = label
        self.found = image

    def __call__(self, images: Tensor, logits: Tensor, indices: Tensor, draws: int) -> None:
        """An :data:`~lit_purify.defence.Observer`."""
        images = images.detach()
        wrong = ~correct(logits, self.label.expand(len(logits)))
        wrong &= self.attack.admits(images, self.image.expand_as(images))
        for image in images[wrong]:
            # Rounding may have put it just outside the ball: what counts is what is returned.
            inside = self.attack.project(image.unsqueeze(0), self.image)
            with torch.no_grad():
                if not correct(self.defence(inside), self.label):
                    self.found = inside
                    raise Fooled

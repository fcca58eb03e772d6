"""A second of work before a test: can the numbers that will come out mean anything?

What is found is kept in the summary, and what is off becomes a flag
(:mod:`lit_purify.report.flags`). Where no number could mean anything the run is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from lit_purify.classifiers import Classifier
from lit_purify.data.base import ImageDataModule
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise
from lit_purify.functional import suspicious_range, zero_share
from lit_purify.types import Batch, InputError

NUM_IMAGES = 2
"""Images that are tried: a batch, and one of its rows alone."""


class Preflight(TypedDict, total=False):
    """What was found. What does not apply to the run is absent.

    Attributes:
        indices: dataset indices of the images that were tried.
        num_classes: K; an accuracy of 1 / K is that of chance.
        odd_values: what is odd about the values of the images; ``None`` where nothing is.
        training: the modules that are in training mode.
        differs_alone: ``classifier`` and ``purifier`` -> largest difference between their answers
            to an image in a batch and to the same image alone: of purified images in the [0, 1]
            scale, of logits in units of the largest distance between two of them.
        differs_again: likewise between two answers to the same image alone.
        purified_range: least and largest value of the purified images.
        draws_noise: whether the purifier asked for noise.
        probabilities: whether the classifier's answers look like probabilities.
        nonfinite: who gave numbers that are not finite.
        zero_gradient: share of an image's pixels in which the gradient of its loss is exactly zero,
            in [0, 1]; ``None`` where the logits do not depend differentiably on the images.
        compiled: names of the networks that run compiled.
        replayed: names of those whose passes are replayed as CUDA graphs.
        not_compiled: why none does although they were to be compiled.
    """

    indices: list[int]
    num_classes: int
    odd_values: str | None
    training: list[str]
    differs_alone: dict[str, float]
    differs_again: dict[str, float]
    purified_range: tuple[float, float]
    draws_noise: bool
    probabilities: bool
    nonfinite: list[str]
    zero_gradient: float | None
    compiled: list[str]
    replayed: list[str]
    not_compiled: str


def first_images(trainer: Trainer, name: str) -> Batch | None:
    """The first images of a run on its device, :data:`NUM_IMAGES` or fewer.

    Args:
        trainer: of the run.
        name: what the data module calls them: ``test_set`` or ``predict_set``.

    Returns:
        ``None`` where the data are none of this package's.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    images = getattr(data, name, None) if isinstance(data, ImageDataModule) else None
    if images is None:
        return None
    batch = default_collate([images[i] for i in range(min(NUM_IMAGES, len(images)))])
    first: Batch = trainer.strategy.batch_to_device(batch)
    return first


def preflight(defence: Defence, noise: FixedNoise, batch: Batch, *, attacked: bool) -> Preflight:
    """Try a defence on the first images of a test.

    Args:
        defence: the defence, unbound; its classifier is a :class:`Classifier`.
        noise: randomness that it is tried under.
        batch: the images, :data:`NUM_IMAGES` or fewer.
        attacked: whether the run attacks, so that it may follow a gradient.

    Raises:
        InputError: an answer is not of the shape that the contract says, or of no image finite; or
            the images are changed in place.
    """
    classifier, purifier = defence.classifier, defence.purifier
    assert isinstance(classifier, Classifier)
    images, indices = batch["image"], batch["index"]
    found = Preflight(
        indices=indices.tolist(),
        num_classes=classifier.num_classes,
        odd_values=suspicious_range(images),
        training=_in_training(defence),
        differs_alone={},
        differs_again={},
        nonfinite=[],
    )
    named = {
        "classifier": f"the classifier ({classifier.source})",
        "purifier": f"the purifier ({type(purifier).__name__})",
    }

    def purified(images: Tensor) -> Tensor:
        samples = indices[: len(images)]
        kept = noise.cached(samples)
        answer: object = defence.bind(kept, samples).purify(images)
        found["draws_noise"] = kept.drawn
        if not isinstance(answer, Tensor) or answer.shape != images.shape:
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InputError(
                f"{named['purifier']} gave {got} for {len(images)} images; expected a tensor of "
                f"their shape {tuple(images.shape)}: return the purified images alone"
            )
        return answer

    def check(role: str, answers: Tensor) -> None:
        finite = answers.isfinite().flatten(1).all(1)
        if not finite.any():
            raise InputError(
                f"{named[role]} gives numbers that are not finite for every image that was tried "
                f"(dataset indices {found['indices']}), so that no result would mean anything; "
                "look for a division by zero, an overflow or weights that are not finite"
            )
        if not finite.all() and role not in found["nonfinite"]:
            found["nonfinite"].append(role)

    def compare(role: str, answer: Callable[[Tensor], Tensor]) -> Tensor:
        given = images.clone()
        together = answer(given)
        if not given.equal(images):
            raise InputError(
                f"{named[role]} changes the images that it is given, which are measured "
                "afterwards; let it work on a copy: images = images.clone()"
            )
        alone, again = answer(images[:1]), answer(images[:1])
        check(role, together)
        unit = _spread(together) if role == "classifier" else 1.0
        found["differs_alone"][role] = _difference(together[:1], alone) / unit
        found["differs_again"][role] = _difference(alone, again) / unit
        return together

    found["probabilities"] = _are_probabilities(compare("classifier", classifier))
    if purifier is not None:
        cleaned = compare("purifier", purified)
        # Of an image that is not finite no classifier could make anything.
        check("classifier", classifier(cleaned)[cleaned.isfinite().flatten(1).all(1)])
        finite = cleaned[cleaned.isfinite()]
        found["purified_range"] = (finite.min().item(), finite.max().item())
    if attacked:
        gradient = _gradient(defence.bind(noise, indices[:1]), images[:1], batch["label"][:1])
        found["zero_gradient"] = None if gradient is None else float(zero_share(gradient))
    return found


def _are_probabilities(logits: Tensor) -> bool:
    """Whether every row lies in [0, 1] and sums up to 1."""
    sums = logits.float().sum(1)
    return bool((logits >= 0).all() and ((sums - 1).abs() < 1e-3).all())


def _in_training(defence: nn.Module) -> list[str]:
    """Names of the outermost modules in training mode."""
    names = [name for name, module in defence.named_modules() if module.training and name]
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference of the entries that are finite in both; 0 where there is none."""
    difference = (one.float() - other.float()).abs()
    return float(difference.where(difference.isfinite(), 0).max())


def _spread(logits: Tensor) -> float:
    """Largest distance between two logits of an image."""
    finite = logits.float().where(logits.isfinite(), 0)
    return float((finite.amax(1) - finite.amin(1)).max()) or 1.0


def _gradient(defence: Defence, image: Tensor, label: Tensor) -> Tensor | None:
    """Gradient of the cross-entropy; ``None`` where it cannot be taken."""
    x = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        try:
            loss = F.cross_entropy(defence(x), label)
            (gradient,) = torch.autograd.grad(loss, x, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # such as NumPy's; an attack need not ask for a gradient
            return None
    return gradient

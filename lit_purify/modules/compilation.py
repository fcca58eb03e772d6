"""A defence compiled by ``torch.compile``: which parts it has, and whether they do as before."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lit_purify.classifiers import Classifier
from lit_purify.data.peers import peers_of
from lit_purify.defence import Defence
from lit_purify.diffusion.compiled_step import CompiledStep
from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.diffusion_purifier import DiffusionPurifier
from lit_purify.diffusion.noise import NoiseSource
from lit_purify.diffusion.purifier import Purifier
from lit_purify.modules.preflight import Preflight
from lit_purify.types import Batch

if TYPE_CHECKING:
    from lit_purify.modules.purified_classifier import PurifiedClassifier

TOLERANCES = {"float32": 1e-5, "tf32": 1e-2, "bf16": 1e-1}
"""How far compiled code may be from eager's, in each arithmetic: the norm of the difference of the
logits, and of their gradient, in units of the norm of eager's."""

_ROUNDING = 10
"""It may be so many times as far as eager's own numbers move with the size of the batch. On an H200
the gradient of a chain of ten steps moves by 6e-5 then, and is 1.2e-4 away from that in float64."""


class NotCompiledWarning(UserWarning):
    """Networks run uncompiled although they were to be compiled."""


def networks(purifier: Purifier, classifier: Classifier) -> dict[str, nn.Module]:
    """The networks of a defence by their place: what :func:`compile_defence` compiles.

    They are the modules that a purifier holds and calls; a list or dictionary of modules is
    entered. A purifier without any (a blur, a JPEG) has nothing to compile.
    """
    found = {f"purifier.{name}": network for name, network in _called_children(purifier)}
    return {**found, "classifier": classifier}


def _called_children(parent: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in parent.named_children():
        if type(child).forward is not nn.Module.forward:
            yield name, child
        else:  # it holds modules and cannot be called itself
            yield from ((f"{name}.{inner}", network) for inner, network in _called_children(child))


def compile_defence(
    purifier: Purifier, classifier: Classifier, *, graphs_only: bool = False
) -> None:
    """Have the networks of a defence compiled at their first call, in place.

    The denoiser of a :class:`DiffusionPurifier` is compiled together with its sampler, unless the
    steps of the chain are chosen as it runs or the denoiser is told a class.

    Args:
        purifier: of the defence.
        classifier: of the defence.
        graphs_only: replay the steps of diffusion purifiers as CUDA graphs and compile nothing.
    """
    chains = _chains(purifier)
    for chain in chains.values():
        if chain.compiled is None:
            chain.compile_step(backend=None if graphs_only else "inductor")
    if graphs_only:
        return
    for network in networks(purifier, classifier).values():
        if id(network) not in chains and network._compiled_call_impl is None:
            _compile_network(network)


def uncompile_defence(purifier: Purifier, classifier: Classifier) -> None:
    """Have the networks run as they are from now on."""
    for chain in _chains(purifier).values():
        chain.compiled = None
    for network in networks(purifier, classifier).values():
        network._compiled_call_impl = None


def compiled_parts(purifier: Purifier, classifier: Classifier) -> list[str]:
    """Names of the networks whose calls run compiled code."""
    steps = _steps(purifier)
    return [
        name
        for name, network in networks(purifier, classifier).items()
        if network._compiled_call_impl is not None
        or (id(network) in steps and steps[id(network)].backend is not None)
    ]


def replayed_parts(purifier: Purifier, classifier: Classifier) -> list[str]:
    """Names of the networks whose passes are replayed as CUDA graphs."""
    steps = _steps(purifier)
    return [
        name
        for name, network in networks(purifier, classifier).items()
        if id(network) in steps and steps[id(network)].holds_memory
    ]


def settle_compilation(module: PurifiedClassifier, defence: Defence, first: Batch) -> Preflight:
    """Compile a module for a run, where that is asked for and gives what eager execution gives.

    Args:
        module: set up for a run; it may be compiled already.
        defence: what the run tests of it.
        first: images to try it on.

    Returns:
        What runs compiled; and why nothing does although it was to.
    """
    parts, trainer = (module.purifier, module.classifier), module.trainer
    images, indices = first["image"], first["index"]
    if not (module.compile_networks is True or (module.compile_networks and images.is_cuda)):
        return Preflight(compiled=compiled_parts(*parts))
    compile_defence(*parts, graphs_only=module.compile_networks is not True)
    # As many as in a batch, for the very graphs that the run will replay; else one size is any.
    size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
    size = size if images.is_cuda else min(size, len(images))
    rows = torch.arange(size, device=images.device) % len(images)
    images, indices = images[rows], indices[rows]
    low = "bf16" if trainer.precision == "bf16-mixed" else "tf32" if module.tf32 else None
    with trainer.precision_plugin.forward_context():
        why = disagreement(
            defence, module.noise, images, indices, tolerance=TOLERANCES[low or "float32"]
        )
    # All processes compute alike.
    if any(peers_of(trainer).gather(float(why is not None))):
        uncompile_defence(*parts)
        why = why or "so it was on another process"
        warnings.warn(
            f"the networks run uncompiled: {why}; expected what eager execution gives; set "
            "model.compile to false to have them so without this warning",
            NotCompiledWarning,
            stacklevel=2,
        )
        return Preflight(compiled=compiled_parts(*parts), not_compiled=why)
    return Preflight(compiled=compiled_parts(*parts), replayed=replayed_parts(*parts))


def disagreement(
    defence: Defence, noise: NoiseSource, images: Tensor, indices: Tensor, *, tolerance: float
) -> str | None:
    """Why a compiled defence should not be used; ``None`` where it does as an uncompiled one.

    Logits and their gradient are compared. Whatever a compiler raises is a reason too. More than
    the tolerance is allowed where eager's own numbers move by more than a tenth of that when the
    images come in a batch of another size.

    Args:
        defence: compiled; unbound.
        noise: randomness that it is tried under.
        images: shape (B, C, H, W), in [0, 1].
        indices: their dataset indices, shape (B,).
        tolerance: largest relative difference, see :data:`TOLERANCES`.
    """
    xi = noise if defence.purifier is not None else None
    bound = defence.bind(xi, indices)
    with torch.compiler.set_stance("force_eager"):
        expected = _logits_and_gradient(bound, images)
        half = max(1, len(images) // 2)
        again = _logits_and_gradient(defence.bind(xi, indices[:half]), images[:half])
    try:
        found = _logits_and_gradient(bound, images)
    except Exception as error:
        return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
    for name, eager, other, compiled in zip(
        ("logits", "gradient"), expected, again, found, strict=True
    ):
        allowed = max(tolerance, _ROUNDING * _share(other, eager[: len(other)]))
        difference = _share(compiled, eager)
        if not difference <= allowed:
            return (
                f"compiled, the {name} of the first images differ from eager's by a share of "
                f"{difference:.1g}, where {allowed:.0e} is allowed"
            )
    return None


def _share(found: Tensor, expected: Tensor) -> float:
    """The norm of a difference in units of the norm of what is expected."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def _logits_and_gradient(defence: Defence, images: Tensor) -> list[Tensor]:
    """In float64; without a gradient where there is none."""
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        logits = defence(x)
        found = [logits.detach().double()]
        if logits.requires_grad:
            # Unequal weights, and no loss that saturates where the classifier is sure.
            weights = torch.linspace(-1, 1, logits.shape[1], device=x.device)
            (gradient,) = torch.autograd.grad((logits.float() * weights).sum(), x)
            found.append(gradient.double())
    return found


def _chains(purifier: Purifier) -> dict[int, DiffusionPurifier]:
    """The diffusion purifiers with steps to compile, by the identity of their denoiser."""
    found = (module for module in purifier.modules() if isinstance(module, DiffusionPurifier))
    return {id(chain.denoiser): chain for chain in found if chain.compiles_steps}


def _steps(purifier: Purifier) -> dict[int, CompiledStep]:
    """The compiled or replayed steps of a purifier, by the identity of their denoiser."""
    return {key: c.compiled for key, c in _chains(purifier).items() if c.compiled is not None}


def _compile_network(network: nn.Module) -> None:
    network.compile()
    compiled: Callable[..., Tensor] = network._compiled_call_impl  # type: ignore[assignment]

    def call(x: Tensor, *arguments: object) -> Tensor:
        if len(x) > 1:  # one graph for all of them
            torch._dynamo.maybe_mark_dynamic(x, 0)
        if isinstance(network, Denoiser) and not isinstance(arguments[0], Tensor):
            # The step t as a tensor: of a number, each value would have a graph of its own.
            t, *classes = arguments
            arguments = (torch.full((len(x),), t, device=x.device), *classes)  # type: ignore[call-overload]
        return compiled(x, *arguments)

    network._compiled_call_impl = call

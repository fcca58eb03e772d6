"""The memory plan against what PyTorch's profiler sees allocated, and against closed forms."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from oracles import TinyDenoiser, fill, some_images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lit_purify.attacks import PGD
from lit_purify.defence import Defence
from lit_purify.diffusion import (
    DDPMSampler,
    DiffusionPurifier,
    DPMSolverSampler,
    EDMSampler,
    FixedNoise,
    Sampler,
    UNetDenoiser,
    guided_diffusion_unet,
    small_unet,
)
from lit_purify.diffusion.live_bytes import LiveBytes
from lit_purify.diffusion.memory import MemoryPlan, count_operations, memory_plan
from lit_purify.diffusion.recompute import ActivationBudget, activation_bytes
from lit_purify.types import InputError

LEARNED = DDPMSampler(variance="learned_range")
BELOW = 0.98
"""The plan leaves out what an operation holds within itself, such as a copy of one layer's input in
another layout, and tensors of a few numbers per image."""
ABOVE = 1.05
"""Not all of the attack's images, which it counts, are alive at the same time."""


def guided(seed: int | None = 0) -> UNetDenoiser:
    """A small network of the guided diffusion's kind, for 16 x 16 pixels."""
    return guided_diffusion_unet(
        image_size=16,
        model_channels=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(8,),
        num_head_channels=16,
        seed=seed,
    )


class Norm(nn.GroupNorm):
    """Does openly what PyTorch does on a GPU, in memory that the profiler of a CPU sees."""

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(
            input.float().contiguous(), self.num_groups, self.weight, self.bias, self.eps
        )


def as_on_a_gpu(network: nn.Module) -> nn.Module:
    """The network with such norms."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = Norm
    return network


class Linear(nn.Module):
    """Ten classes by one matrix: no activations to speak of."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        return pixels @ torch.linspace(-1, 1, 10 * pixels.shape[1]).view(-1, 10)


class Wide(nn.Module):
    """Activations of 400 times the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1200, 1)
        fill(self, seed=0, std=0.1).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.layer(images)).mean((2, 3))[:, :10]


def allocated(work: Callable[[], object]) -> int:
    """Most bytes that an action holds at once beyond what was there before, by the profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def attacked(
    purifier: DiffusionPurifier,
    classifier: nn.Module,
    shape: tuple[int, ...],
    rows: int,
    mixed: bool,
) -> int:
    """Most bytes of one step of PGD under fixed noise, normalised as on a GPU, without weights."""
    as_on_a_gpu(purifier)
    images = some_images(rows, shape).float()
    labels, indices = torch.zeros(rows, dtype=torch.int64), torch.arange(rows)

    def attack() -> None:
        batch = images.clone()  # as a data module made it
        defence = Defence(classifier, purifier).bind(FixedNoise(0), indices)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            PGD(steps=1)(defence, batch, labels, indices)

    attack()  # the first time also measures what a step keeps
    return allocated(attack)


def assert_planned(
    purifier: DiffusionPurifier,
    rows: int,
    *,
    side: int = 16,
    classifier: type[nn.Module] = Linear,
    mixed: bool = False,
    workspace: int = 0,
) -> MemoryPlan:
    """The plan is what the profiler sees of an attack, but for a workspace; returns it."""
    shape, network = (3, side, side), classifier()
    plan = memory_plan(purifier, network, shape, rows, mixed=mixed)
    measured = attacked(purifier, network, shape, rows, mixed)
    assert BELOW * measured - workspace <= plan.peak - plan.weights <= ABOVE * measured
    return plan


@pytest.mark.parametrize(
    ("rows", "t_star", "steps_kept"),
    [(2, 3, 0), (5, 3, 0), (2, 30, 0), (2, 4, 1), (5, 4, 2), (2, 6, 1000)],
)
def test_batch_depth_and_budget(rows: int, t_star: int, steps_kept: int) -> None:
    network = partial(as_on_a_gpu(guided()).requires_grad_(False), t=10)
    each = activation_bytes(network, some_images(rows, (3, 16, 16)).float())
    purifier = DiffusionPurifier(
        guided(),
        t_star=t_star,
        sampler=LEARNED,
        memory_budget_gib=(steps_kept + 0.5) * each / 2**30 if steps_kept else 0,
    )
    assert assert_planned(purifier, rows).steps_kept == min(steps_kept, t_star)


@pytest.mark.parametrize("sampler", [EDMSampler(s_churn=1.0), DPMSolverSampler()])
def test_two_evaluations_a_step_and_what_is_carried_beside_a_state(sampler: Sampler) -> None:
    purifier = DiffusionPurifier(guided(), t_star=6, sampler=sampler, memory_budget_gib=0)
    plan = assert_planned(purifier, 4)
    assert plan.states == 6 * 4 * 3 * 16 * 16 * 4 * (1 + sampler.carried)


@pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])
def test_resized_images_and_another_network(forward: Any) -> None:
    purifier = DiffusionPurifier(
        small_unet(), t_star=6, forward_process=forward, resize_to=32, memory_budget_gib=0
    )
    assert_planned(purifier, 4, side=28)


@pytest.mark.parametrize("budget", [0.0, 1.0])
@pytest.mark.parametrize(("classifier", "mixed"), [(Linear, True), (Wide, False)])
def test_mixed_precision_and_a_classifier_that_needs_more_than_the_chain(
    budget: float, classifier: type[nn.Module], mixed: bool
) -> None:
    purifier = DiffusionPurifier(guided(), t_star=4, sampler=LEARNED, memory_budget_gib=budget)
    plan = assert_planned(purifier, 4, classifier=classifier, mixed=mixed)
    assert plan.steps_kept == (0 if budget == 0 else 4)
    assert (plan.classifier > plan.step) == (classifier is Wide)


def test_one_image_needs_a_workspace_more() -> None:
    """A CPU with one thread unfolds a lone image for its convolutions: memory of a library."""
    denoiser, unfolded = guided(), [0]

    def watch(module: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        taps = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        unfolded.append(taps * output.shape[2] * output.shape[3] * 4)

    for module in denoiser.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(watch)
    purifier = DiffusionPurifier(denoiser, t_star=6, sampler=LEARNED, memory_budget_gib=0)
    attacked(purifier, Linear(), (3, 16, 16), 1, mixed=False)  # to see what is unfolded
    assert_planned(purifier, 1, workspace=max(unfolded))


def test_a_network_without_weights_has_the_plan_of_one_with_weights() -> None:
    plans = [
        memory_plan(
            DiffusionPurifier(guided(seed), t_star=10, sampler=LEARNED, memory_budget_gib=0.1),
            Wide().to("meta" if seed is None else "cpu"),
            (3, 16, 16),
            3,
        )
        for seed in (None, 0)
    ]
    assert plans[0] == plans[1]
    assert plans[0].steps_kept > 0


def test_the_plan_of_guided_diffusion() -> None:
    """552,814,086 parameters; states of 3 x 256 x 256 float32, 150 kept, 299 drawn."""
    denoiser = guided_diffusion_unet(seed=None)
    purifier = DiffusionPurifier(denoiser, t_star=150, sampler=LEARNED, resize_to=256)
    plan = memory_plan(purifier, Linear(), (3, 224, 224), 2)
    assert plan.weights == 4 * 552_814_086
    state = 2 * 3 * 256 * 256 * 4
    assert plan.states == 150 * state
    assert plan.noise == 299 * state
    assert plan.images == 6 * 2 * 3 * 224 * 224 * 4
    assert plan.steps_kept == 0  # one step keeps more than the 2 GiB of the default
    assert plan.kept == 0
    parts = plan.weights + plan.states + plan.noise + plan.images
    assert plan.peak == parts + plan.step
    assert all(parameter.is_meta for parameter in denoiser.parameters())


@pytest.mark.parametrize("forward", ["stepwise", "one_shot", "none"])
def test_the_noise_planned_is_the_noise_kept(forward: Any) -> None:
    images, indices = some_images(3, (3, 16, 16)).float(), torch.arange(3)
    purifier = DiffusionPurifier(
        TinyDenoiser().float(), t_star=9, num_steps=4, forward_process=forward, resize_to=20
    )
    noise: Any = FixedNoise(0).cached(indices)
    purifier.purify(images, noise, indices)
    kept = sum(draws.nbytes for draws in noise._store.values())
    assert memory_plan(purifier, Linear(), (3, 16, 16), 3).noise == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size"),
        ({"image_shape": (3, 8, 8)}, "expects batches"),
    ],
)
def test_what_cannot_be_planned_is_refused(options: Any, message: str) -> None:
    purifier = DiffusionPurifier(guided(None), t_star=5)
    with pytest.raises(InputError, match=message):
        memory_plan(purifier, Linear(), **{"image_shape": (3, 16, 16), "batch_size": 1, **options})


def test_the_operations_of_a_gradient_are_those_of_the_chain() -> None:
    """The network's, each step twice up and once down."""
    purifier = DiffusionPurifier(guided(), t_star=5, sampler=LEARNED, memory_budget_gib=0)
    image = some_images(1, (3, 16, 16)).float().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = purifier.purify(image, FixedNoise(0), torch.arange(1))
        torch.autograd.grad(output.sum(), image)
    forward, backward = count_operations(guided(None), (3, 16, 16), 10)
    assert 5 * (2 * forward + backward) == counter.get_total_flops()


def test_the_operations_of_a_convolution() -> None:
    """Two for every tap and output value, and as many for the gradient of the image alone."""
    layer = nn.Conv2d(3, 5, 3, padding=1)
    assert count_operations(layer, (3, 6, 7)) == (2 * (3 * 3 * 3) * (5 * 6 * 7),) * 2


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_counts_a_storage_once_while_it_lives(device: str) -> None:
    before = torch.zeros(1000, device=device)
    with LiveBytes() as live:
        x = before.view(10, 100)[2:]  # memory that was there
        assert (live.now, live.peak) == (0, 0)
        y = x.exp()
        z = y.t()[:5].mul_(2)  # a view, in place
        assert live.now == y.nbytes == 3200
        del y
        assert live.now == 3200
        w = z.sin()
        assert live.now == live.peak == 3200 + w.nbytes
        del z
        assert live.now == w.nbytes
    assert live.peak == 3200 + w.nbytes
    del w
    assert live.now == 0


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_activation_bytes_counts_what_backward_needs(device: str) -> None:
    x = torch.zeros(2, 3, 4, 4, device=device)
    # exp keeps its result; the second exp's input is the same tensor and is not needed.
    assert activation_bytes(torch.exp, x) == x.nbytes
    assert activation_bytes(lambda x: x.exp().exp(), x) == 2 * x.nbytes
    # A product with a frozen weight keeps no activation, a sum neither.
    weight = torch.ones(3, 1, 1, device=device)
    assert activation_bytes(lambda x: x * weight + 1, x) == 0
    assert x.grad is None
    unet = small_unet().to(device)
    images = torch.zeros(2, 3, 32, 32, device=device)
    assert activation_bytes(partial(unet, t=10), images) == 2 * activation_bytes(
        partial(unet, t=10), images[:1]
    )


def test_weights_copied_by_mixed_precision_count() -> None:
    """The backward pass of a frozen layer keeps its weights: in bfloat16 as a copy of its own."""
    layer = nn.Linear(20, 30, bias=False).requires_grad_(False)
    x = torch.zeros(4, 20)
    assert activation_bytes(layer, x) == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert activation_bytes(layer, x) == 20 * 30 * 2


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_budget_holds_whole_steps_at_every_batch_size(rows: int, mixed: bool) -> None:
    """What does not grow with the batch is counted once, and each precision for itself."""
    layer = nn.Linear(20, 30).requires_grad_(False)

    def network(x: Tensor) -> Tensor:
        return layer(x).exp().sin()

    x = torch.zeros(rows, 20)
    # exp keeps its result, sin the same tensor; mixed precision the weights and, as exp runs in
    # float32 there, nothing more.
    with torch.autocast("cpu", dtype=torch.bfloat16) if mixed else nullcontext():
        each = activation_bytes(network, x)
    budget = ActivationBudget(3.5 * each / 2**30)
    budget.steps(network, torch.zeros(2, 20))  # of the other precision
    with torch.autocast("cpu", dtype=torch.bfloat16) if mixed else nullcontext():
        assert budget.steps(network, x) == 3
    assert ActivationBudget(0).steps(network, x) == 0
    assert ActivationBudget(1).steps(network, x[:0]) == 0

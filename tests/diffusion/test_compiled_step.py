"""A chain whose steps are compiled: the plain chain's numbers, in any batch, with any rooms.

The quick tests have PyTorch take the step in and run it as it is (backend ``eager``); what another
compiler does to it is tested in ``tests/modules/test_compilation.py``. CUDA graphs are emulated.
"""

import copy
import itertools

import pytest
import torch
from emulated_graphs import emulate
from oracles import some_images, waves
from torch import Tensor
from torch._dynamo.utils import counters

from lit_purify.attacks import PGD
from lit_purify.defence import Defence
from lit_purify.diffusion import (
    DDIMSampler,
    DDPMSampler,
    DiffusionPurifier,
    DPMSolverSampler,
    EDMSampler,
    FixedNoise,
    ProbabilityFlowSampler,
    Sampler,
    StackedNoise,
    VPSDESampler,
)
from lit_purify.diffusion.compiled_step import CompiledStep
from lit_purify.diffusion.noise import CachedNoise, NoiseConfiguration
from lit_purify.diffusion.step_rooms import GraphRoom, Room
from lit_purify.functional.jacobian import push_forward

STEPS = 4
SAMPLERS: list[Sampler | None] = [
    None,
    DDPMSampler(variance="fixed_large", clip=False),
    DDIMSampler(),
    DDIMSampler(eta=0.5),
    VPSDESampler(),
    ProbabilityFlowSampler(method="heun"),
    EDMSampler(s_churn=1.0),
    DPMSolverSampler(),
]


def chain(sampler: Sampler | None = None, **options: float) -> DiffusionPurifier:
    return DiffusionPurifier(waves(), t_star=24, num_steps=STEPS, sampler=sampler, **options)  # type: ignore[arg-type]


def step_of(purifier: DiffusionPurifier) -> CompiledStep:
    assert purifier.compiled is not None
    return purifier.compiled


def compiled_chain(
    sampler: Sampler | None = None,
    *,
    rooms: int = 0,
    bucketed: bool = True,
    backend: str | None = "eager",
) -> DiffusionPurifier:
    """With memory for the activations of so many steps."""
    purifier = chain(sampler)
    purifier.compile_step(backend=backend, bucketed=bucketed)
    purifier.budget.steps = lambda network, x: rooms  # type: ignore[method-assign]
    return purifier


def output_and_gradient(
    purifier: DiffusionPurifier, n: int, noise: NoiseConfiguration | None = None
) -> tuple[Tensor, Tensor]:
    images = some_images(n).requires_grad_()
    output = purifier.purify(images, noise or FixedNoise(0), torch.arange(n))
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return output.detach(), torch.autograd.grad((weights * output).sum(), images)[0]


def assert_same(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every forward pass of a step."""
    rows: list[int] = []
    forward = Room.forward

    def counted(self: Room, *inputs: Tensor) -> Tensor:
        rows.append(len(inputs[0]))
        return forward(self, *inputs)

    monkeypatch.setattr(Room, "forward", counted)
    return rows


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_output_and_gradient_are_those_of_the_plain_chain(sampler: Sampler | None) -> None:
    assert_same(
        output_and_gradient(compiled_chain(sampler), 3), output_and_gradient(chain(sampler), 3)
    )


def test_a_shrinking_batch_is_padded_and_compiles_nothing_new(passes: list[int]) -> None:
    purifier = compiled_chain()
    output_and_gradient(purifier, 12)
    counters.clear()
    for n in range(12, 0, -1):
        assert_same(output_and_gradient(purifier, n), output_and_gradient(chain(), n))
    assert counters["stats"]["unique_graphs"] == 0
    assert set(passes) == {12, 8, 4, 2}


def test_a_step_need_not_be_compiled(passes: list[int]) -> None:
    counters.clear()
    purifier = compiled_chain(backend=None)
    for n in (6, 3, 1):
        assert_same(output_and_gradient(purifier, n), output_and_gradient(chain(), n))
    assert counters["stats"]["unique_graphs"] == 0
    assert set(passes) == {6, 4, 2}


def test_two_functions_serve_every_step_and_batch() -> None:
    counters.clear()
    purifier = compiled_chain(bucketed=False)
    for n in (5, 2, 1, 7):
        output_and_gradient(purifier, n)
    assert counters["stats"]["unique_graphs"] == 2  # the last step draws no noise


def test_a_batch_of_one_is_padded_only_where_there_were_more(passes: list[int]) -> None:
    purifier = compiled_chain(bucketed=False)
    for n in (1, 3, 1):
        assert_same(output_and_gradient(purifier, n), output_and_gradient(chain(), n))
    assert [n for n, _ in itertools.groupby(passes)] == [1, 3, 2]


def test_compilations_of_one_chain_do_not_count_for_another() -> None:
    for _ in range(9):  # PyTorch gives up after eight
        output_and_gradient(compiled_chain(), 2)


@pytest.mark.parametrize("rooms", [0, 1, 2, STEPS, 9])
def test_as_many_steps_are_kept_as_there_are_rooms(rooms: int, passes: list[int]) -> None:
    purifier = compiled_chain(rooms=rooms)
    assert_same(output_and_gradient(purifier, 2), output_and_gradient(chain(), 2))
    # The step that ran last is in its room in any case.
    assert len(passes) == 2 * STEPS - min(max(rooms, 1), STEPS)


@pytest.mark.parametrize("rooms", [1, STEPS])
def test_chains_between_the_passes_of_another_change_nothing(rooms: int) -> None:
    purifier, losses, inputs = compiled_chain(rooms=rooms), [], []
    for n in (2, 3):
        images = some_images(n).requires_grad_()
        losses.append(purifier.purify(images, FixedNoise(0), torch.arange(n)).square().sum())
        inputs.append(images)
    with torch.no_grad():
        purifier.purify(some_images(4), FixedNoise(1), torch.arange(4))
    for images, loss in zip(inputs, losses, strict=True):
        plain = chain().purify(images, FixedNoise(0), torch.arange(len(images)))
        (expected,) = torch.autograd.grad(plain.square().sum(), images)
        for _ in range(2):  # the second time nothing is in its room
            assert_same(torch.autograd.grad(loss, images, retain_graph=True)[0], expected)


def test_padded_rows_reach_no_other() -> None:
    images = some_images(3)
    images[2] = torch.nan  # the row that is repeated
    found = compiled_chain().purify(images, FixedNoise(0), torch.arange(3))
    assert found[2].isnan().all()
    assert_same(found[:2], chain().purify(images[:2], FixedNoise(0), torch.arange(2)))


def test_an_early_stopping_attack_finds_the_same() -> None:
    images, labels = some_images(6).float(), torch.tensor([0, 1, 0, 1, 0, 1])
    indices = torch.arange(6)
    attack = PGD(eps=0.2, steps=5, rel_stepsize=0.3, early_stop=True)

    def classify(x: Tensor) -> Tensor:
        mean = x[:, :, ::2].mean((1, 2, 3))
        return torch.stack([mean, x[:, :, 1::2].mean((1, 2, 3))], 1)

    found, expected = (
        attack(Defence(classify, purifier).bind(FixedNoise(0), indices), images, labels, indices)
        for purifier in (compiled_chain().float(), chain().float())
    )
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, images)


def test_the_states_on_the_way_and_their_gradients() -> None:
    def loss(x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1)

    def states(purifier: DiffusionPurifier) -> list[Tensor]:
        noise, indices = FixedNoise(0), torch.arange(2)
        visited = [s.image for s in purifier.trajectory(some_images(2), noise, indices)]
        found = purifier.state_gradients(some_images(2), noise, indices, loss)
        return [*visited, *(state.image for state in found)]

    assert_same(states(compiled_chain()), states(chain()))


def test_what_a_gradient_is_not_enough_for_runs_uncompiled(passes: list[int]) -> None:
    images, noise, indices = some_images(2), FixedNoise(0), torch.arange(2)
    found, expected = [], []
    for purifier, results in ((compiled_chain(), found), (chain(), expected)):

        def purify(x: Tensor, purifier: DiffusionPurifier = purifier) -> Tensor:
            return purifier.purify(x, noise, indices)

        output, pull = torch.func.vjp(purify, images)
        results += [output, *pull(torch.ones_like(output))]
        tangents = torch.ones_like(images)
        results.append(torch.func.jvp(purify, (images,), (tangents,))[1])
        results += [
            push_forward(purify, images, tangents, differentiation=way)
            for way in ("forward", "reverse")  # type: ignore[arg-type]
        ]
    assert_same(found, expected)
    assert passes == []


def test_a_second_derivative_is_refused() -> None:
    images = some_images(2).requires_grad_()
    output = compiled_chain().purify(images, FixedNoise(0), torch.arange(2))
    (gradient,) = torch.autograd.grad(output.square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_steps_are_computed_again_in_the_precision_of_the_first_time() -> None:
    def gradient(purifier: DiffusionPurifier) -> Tensor:
        purifier.float()
        images = some_images(2).float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            output = purifier.purify(images, FixedNoise(0), torch.arange(2))
        return torch.autograd.grad(output.square().sum(), images)[0]

    torch.testing.assert_close(gradient(compiled_chain()), gradient(chain()))


def test_inference_mode() -> None:
    purifier = compiled_chain()
    with torch.inference_mode():
        found = purifier.purify(some_images(2), FixedNoise(0), torch.arange(2))
    assert_same(found.clone(), output_and_gradient(chain(), 2)[0])
    assert_same(output_and_gradient(purifier, 2), output_and_gradient(chain(), 2))


def test_a_copy_is_not_compiled() -> None:
    assert copy.deepcopy(compiled_chain()).compiled is None


def test_a_denoiser_whose_answer_is_wrong_is_refused_uncompiled_and_compiled() -> None:
    purifier = compiled_chain()
    purifier.denoiser.second = torch.nn.Conv2d(6, 5, 3, padding=1).double()
    with pytest.raises(Exception, match="Waves"):
        output_and_gradient(purifier, 2)


class TestGraphs:
    """Emulated on the CPU: every buffer is overwritten by the next replay, as on a GPU."""

    @pytest.fixture(autouse=True)
    def emulated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        emulate(monkeypatch)
        # What is compiled shows none of its operations to an emulation.
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)

        def room(self: CompiledStep, device: torch.device) -> Room:
            return GraphRoom(self._function, self._key)

        monkeypatch.setattr(CompiledStep, "_new_room", room)

    @pytest.mark.parametrize("rooms", [0, 2, STEPS])
    def test_replays_give_the_numbers_of_the_plain_chain(self, rooms: int) -> None:
        purifier = compiled_chain(rooms=rooms)
        for n in (6, 3, 5, 1, 6):
            assert_same(output_and_gradient(purifier, n), output_and_gradient(chain(), n))

    def test_chains_between_the_passes_of_another_change_nothing(self) -> None:
        test_chains_between_the_passes_of_another_change_nothing(2)

    def test_a_size_is_captured_once_for_all_steps(self) -> None:
        purifier = compiled_chain()
        for n in (4, 3, 4, 2, 1):
            output_and_gradient(purifier, n)
        (room,) = step_of(purifier)._rooms
        assert isinstance(room, GraphRoom)
        assert len(room._graphs) == 2 * 2  # 4 and 2 rows; the last step has graphs of its own

    @pytest.mark.parametrize(("num_bytes", "rooms"), [(0, 1), (299, 2), (300, 3), (10**6, STEPS)])
    def test_there_are_no_more_rooms_than_fit(
        self, num_bytes: int, rooms: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reserved = itertools.count(step=100)  # asked before and after the capture of a room
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: next(reserved))
        purifier = compiled_chain(DDIMSampler(), rooms=STEPS)
        monkeypatch.setattr(type(purifier.budget), "num_bytes", num_bytes)
        for _ in range(2):
            assert_same(
                output_and_gradient(purifier, 2), output_and_gradient(chain(DDIMSampler()), 2)
            )
        assert len(step_of(purifier)._rooms) == rooms

    def test_weights_that_have_moved_are_found(self) -> None:
        purifier, plain = compiled_chain(), chain()
        output_and_gradient(purifier, 2)
        for other in (purifier, plain):
            for weight in other.denoiser.parameters():
                weight.data = weight.data * 0.5
        assert_same(output_and_gradient(purifier, 2), output_and_gradient(plain, 2))

    def test_uncompiled_passes_leave_the_memory_to_the_graphs(self) -> None:
        purifier = compiled_chain(rooms=STEPS)
        x = some_images(2).requires_grad_()
        with torch.compiler.set_stance("force_eager"):
            assert purifier._num_kept(x) == STEPS
        output_and_gradient(purifier, 2)
        with torch.compiler.set_stance("force_eager"):
            assert purifier._num_kept(x) == 0
        purifier.float()  # where they are moved or changed, the graphs are given up
        assert not step_of(purifier).holds_memory


class TestStagedNoise:
    STEPS = (("forward", 3), ("forward", 9), ("reverse", 9))

    def test_draws_are_made_once_and_are_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        indices, like = torch.tensor([7, 7, 2]), some_images(3)
        plain = StackedNoise([FixedNoise(0)])
        for noise in (FixedNoise(0), FixedNoise(0).cached(indices), plain):
            staged = noise.staged(indices, self.STEPS, like=like)  # type: ignore[arg-type]
            expected = [FixedNoise(0).normal(indices, *step, like=like) for step in self.STEPS]  # type: ignore[arg-type]
            with monkeypatch.context() as patch:
                patch.setattr(FixedNoise, "_draw", None)  # nothing is left to be drawn
                found = [staged.normal(indices, *step, like=like) for step in self.STEPS]  # type: ignore[arg-type]
            assert all(map(torch.equal, found, expected))

    def test_of_kept_draws_fewer_samples_take_theirs(self) -> None:
        kept, like = CachedNoise(0, torch.tensor([3, 5, 8])), some_images(2)
        staged = kept.staged(torch.tensor([8, 3]), self.STEPS, like=like)  # type: ignore[arg-type]
        assert staged is kept
        found = staged.normal(torch.tensor([8, 3]), "forward", 3, like=like)
        assert torch.equal(
            found, FixedNoise(0).normal(torch.tensor([8, 3]), "forward", 3, like=like)
        )

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_a_chain_stages_what_it_asks_for(
        self, sampler: Sampler | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        normal = FixedNoise.normal

        def noted(self, indices, process, t, *, like):  # type: ignore[no-untyped-def]
            asked.append((process, t))
            return normal(self, indices, process, t, like=like)

        monkeypatch.setattr(FixedNoise, "normal", noted)
        purifier = chain(sampler)
        purifier.purify(some_images(2), FixedNoise(0), torch.arange(2))
        assert asked == purifier.draws


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("backend", [None, "inductor"])
def test_on_a_gpu(backend: str | None) -> None:
    purifier, plain = compiled_chain().cuda(), chain().cuda()

    def found(purifier: DiffusionPurifier, n: int) -> Tensor:
        images = some_images(n).cuda().requires_grad_()
        output = purifier.purify(images, FixedNoise(0), torch.arange(n))
        return torch.autograd.grad(output.square().sum(), images)[0]

    for rooms in (0, 2, STEPS):
        purifier.compile_step(backend=backend)
        purifier.budget.steps = lambda network, x, rooms=rooms: rooms  # type: ignore[method-assign,misc]
        for n in (6, 3, 5, 1, 6):
            torch.testing.assert_close(found(purifier, n), found(plain, n), rtol=1e-8, atol=1e-10)
        assert step_of(purifier).holds_memory


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_in_low_precision() -> None:
    """Casts of autocast belong to their graph."""
    gradients = []
    for purifier in (compiled_chain(backend=None).float().cuda(), chain().float().cuda()):
        found = []
        for n in (4, 2, 4):
            images = some_images(n).float().cuda().requires_grad_()
            with torch.autocast("cuda", torch.bfloat16):
                output = purifier.purify(images, FixedNoise(0), torch.arange(n))
            found += torch.autograd.grad(output.square().sum(), images)
        gradients.append(found)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)

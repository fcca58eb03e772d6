"""Distance trajectories of purifiers whose distances are known."""

import math

import pytest
import tiny
import torch
from matplotlib.figure import Figure
from measured_run import measured_run
from oracles import TinyDenoiser, reference_chain
from tiny import IdentityPurifier, NoisyPurifier, ScalingPurifier

from lit_purify.callbacks import DistanceTrajectories
from lit_purify.diffusion import DDIMSampler, DiffusionPurifier, FixedNoise
from lit_purify.types import InputError

N = 7
PLACES = ("init", "max", "end")


@pytest.fixture
def run(npz):
    """A function that measures into a folder."""

    def run(folder, purifier, *, protocols=("fixed",), batch_size=3, seed=0, **options):
        measure, more = DistanceTrajectories(**options), {"batch_size": batch_size, "seed": seed}
        return measured_run(folder, npz, purifier, measure, protocols=protocols, **more)

    return run


def clean_images(run):
    return torch.cat([batch["image"] for batch in run.seen.batches]).double()


def three(metrics, start):
    return [metrics[f"{start}_{place}"]["value"] for place in PLACES]


def test_the_identity_keeps_every_distance(run, tmp_path):
    whole = run(tmp_path, IdentityPurifier(), levels=["8/255", 0.5])
    found, images = whole.metrics, clean_images(whole)
    shift = (whole.seen.adversarial("fixed").double() - images).flatten(1)
    for norm, order in (("l2", 2), ("linf", math.inf)):
        sizes = torch.linalg.vector_norm(shift, ord=order, dim=1)
        assert three(found, f"distance/{norm}") == pytest.approx(3 * [sizes.mean().item()])
        assert found[f"distance/{norm}_end"]["std"] == pytest.approx(sizes.std().item(), rel=1e-4)
        logged = whole.logged[f"distance/{norm}_end"]
        assert logged == pytest.approx(sizes.mean().item(), rel=1e-6)
    draw = FixedNoise(0).uniform(torch.arange(N), like=images).flatten(1)
    for name, eps in (("8", 8 / 255), ("127.5", 0.5)):
        expected = eps * torch.linalg.vector_norm(draw, dim=1).mean().item()
        assert three(found, f"distance_uniform_{name}/l2") == pytest.approx(3 * [expected])
        assert three(found, f"distance_uniform_{name}/linf")[0] == pytest.approx(eps, rel=2e-3)


def test_the_surface_that_is_told(run, tmp_path):
    """Purified under the draw that the protocol `fresh` tests, which is not the run's own."""
    purifier = NoisyPurifier()
    whole = run(tmp_path, purifier, levels=[], protocols=("fixed", "fresh"), surface="fresh")
    clean = clean_images(whole)
    before = (whole.seen.adversarial("fresh").double() - clean).flatten(1).norm(dim=1)
    assert whole.metrics["distance/l2_init"]["value"] == pytest.approx(before.mean().item())
    outcomes = [outcome["fresh/adversarial"].image for outcome in whole.seen.outcomes]
    after = (torch.cat(outcomes).double() - clean).flatten(1).norm(dim=1)
    assert whole.metrics["distance/l2_end"]["value"] == pytest.approx(after.mean().item())
    assert whole.settings["distance_surface"] == "fresh"
    assert whole.settings["distance_inputs"] == ["attack (fresh)"]


def test_black_images_are_as_far_as_their_clean_ones_are_bright(run, tmp_path):
    whole = run(tmp_path, ScalingPurifier(factor=0.0), levels=[])
    found = whole.metrics
    after = torch.linalg.vector_norm(clean_images(whole).flatten(1), dim=1)
    assert found["distance/l2_end"]["value"] == pytest.approx(after.mean().item(), rel=1e-6)
    assert found["distance/l2_max"] == found["distance/l2_end"]  # behind the input
    assert found["distance/l2_init"]["value"] < 1


def test_a_diffusion_has_the_distances_of_every_state(run, tmp_path):
    """Against a plain loop of eqs. 1-3: the states not clipped and not rescaled."""
    denoiser = TinyDenoiser()
    purifier = DiffusionPurifier(
        tiny.Float64Denoiser(denoiser), t_star=20, num_steps=4, sampler=DDIMSampler()
    )
    whole = run(tmp_path, purifier, levels=["32/255"], seed=5)
    found, clean, tensors = whole.metrics, clean_images(whole), whole.tensors
    perturbed = {
        "distance": whole.seen.adversarial("fixed").double(),
        "distance_uniform_32": clean
        + 32 / 255 * FixedNoise(5).uniform(torch.arange(N), like=clean),
    }
    visited = [5, 10, 15, 20]
    for name, images in perturbed.items():
        states = reference_chain(denoiser, images, 5, torch.arange(N), visited, variance=None)
        assert len(states) == 9
        away = torch.stack([(state - clean).flatten(1) for state in states], 1)
        expected = torch.stack([away.norm(dim=2), away.abs().amax(2)], 1)
        stored = tensors[f"{name}/trajectory"]
        torch.testing.assert_close(stored.double(), expected, rtol=1e-4, atol=1e-5)
        for row, norm in enumerate(("l2", "linf")):
            curve = expected[:, row]
            means = [curve[:, 0].mean(), curve.amax(1).mean(), curve[:, -1].mean()]
            assert three(found, f"{name}/{norm}") == pytest.approx([m.item() for m in means], 1e-4)
    assert expected.amax() > 1  # a state outside [0, 1] was not clipped


def test_the_perturbations_are_the_same_draw_scaled_and_not_clipped(run, tmp_path):
    purifier = NoisyPurifier()
    seen = run(tmp_path, purifier, batch_size=7, levels=["128/255", "8/255"], seed=3).seen
    (image,) = (batch["image"] for batch in seen.batches)
    # The measurement purifies after the recorder has looked: only its calls are left.
    attacked, *uniform = purifier.calls
    assert torch.equal(attacked[0], seen.adversarial("fixed"))
    draw = FixedNoise(3).uniform(torch.arange(N), like=image)
    for call, eps in zip(uniform, (8 / 255, 128 / 255), strict=True):
        assert torch.equal(call[0], image + eps * draw)
        assert call[1] == 3
    assert uniform[1][0].max() > 1


def test_rows_and_tensors(run, tmp_path):
    whole = run(tmp_path, NoisyPurifier(), levels=["8/255"])
    for name in ("distance", "distance_uniform_8"):
        curves = whole.tensors[f"{name}/trajectory"]
        assert curves.shape == (N, 2, 2)
        ends = whole.column(f"{name}/l2_end")
        assert ends == pytest.approx(curves[:, 0, -1].tolist(), rel=1e-6)
        highest = whole.column(f"{name}/linf_max")
        assert highest == pytest.approx(curves[:, 1].amax(1).tolist(), rel=1e-6)


@pytest.mark.parametrize(("forward", "steps"), [("stepwise", 9), ("one_shot", 6), ("none", 5)])
def test_the_axis_goes_up_and_down(run, tmp_path, monkeypatch, forward, steps):
    drawn = []
    monkeypatch.setattr(
        "lit_purify.callbacks.distances.distance_figure",
        lambda *args: drawn.append(args) or Figure(),
    )
    purifier = DiffusionPurifier(
        tiny.Float64Denoiser(TinyDenoiser()), t_star=20, num_steps=4, forward_process=forward
    )
    run(tmp_path, purifier, levels=[])
    ((curves, axis),) = drawn
    up = {"stepwise": [0, 5, 10, 15, 20], "one_shot": [0, 20], "none": [20]}[forward]
    assert axis == [*up, 15, 10, 5, 0]
    assert curves[0].label == "attack"
    assert curves[0].distances.shape == (N, 2, steps)


def test_the_picture_and_the_settings(run, tmp_path):
    settings = run(tmp_path, IdentityPurifier(), levels=["16/255", 0.1]).settings
    assert settings["distance_inputs"] == ["attack", "uniform 16/255", "uniform 25.5/255"]
    assert (tmp_path / "distances.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("protocol", "levels", "name"),
    [
        ("base", ["8/255"], "distance_uniform_8"),
        ("transfer", [], "distance"),  # attacked under fixed noise too
    ],
)
def test_only_what_there_is_is_measured(run, tmp_path, protocol, levels, name):
    whole = run(tmp_path, IdentityPurifier(), protocols=(protocol,), levels=levels)
    assert {part.split("/")[0] for part in whole.metrics if "distance" in part} == {name}


def test_nothing_to_measure_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="nothing to measure"):
        run(tmp_path, IdentityPurifier(), protocols=("base",), levels=[])

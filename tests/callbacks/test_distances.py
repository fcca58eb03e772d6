"""Distance trajectories of purifiers whose distances are known."""

import json
import math

import pytest
import tiny
import torch
from oracles import TinyDenoiser, reference_chain
from safetensors.torch import load_file
from tiny import Failing, IdentityPurifier, NoisyPurifier, ScalingPurifier, evaluate

from lit_purify.callbacks import DistanceTrajectories, Records, Summary
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import DDIMSampler, DiffusionPurifier, FixedNoise
from lit_purify.modules import PurifiedClassifier
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

N = 7
PLACES = ("init", "max", "end")


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", N))


@pytest.fixture(scope="module")
def run(npz):
    """A function that measures into a folder; returns (summary's metrics, what was seen)."""

    def run(
        folder, purifier, *, protocols=("fixed",), batch_size=3, resume=False, seed=0, **options
    ):
        module = PurifiedClassifier(purifier, tiny.classifier(), protocols=protocols, seed=seed)
        data = CIFAR10DataModule(source=npz, batch_size=batch_size)
        measure = DistanceTrajectories(**options)
        logged, seen = evaluate(
            module, data, measure, Records(resume=resume), Summary(), folder=folder
        )
        metrics = read_summary(folder / "summary.json")["metrics"]
        for name, value in logged.items():
            assert value == pytest.approx(metrics[name]["value"], rel=1e-6), name
        return {name: m for name, m in metrics.items() if name.startswith("distance")}, seen

    return run


def tensors(folder):
    return load_file(folder / "records" / "tensors.safetensors")


def three(metrics, start):
    return [metrics[f"{start}_{place}"]["value"] for place in PLACES]


def test_the_identity_keeps_every_distance(run, tmp_path):
    found, seen = run(tmp_path, IdentityPurifier(), levels=["8/255", 0.5])
    images = torch.cat([batch["image"] for batch in seen.batches])
    shift = (seen.adversarial("fixed") - images).double().flatten(1)
    for norm, order in (("l2", 2), ("linf", math.inf)):
        sizes = torch.linalg.vector_norm(shift, ord=order, dim=1)
        assert three(found, f"distance/{norm}") == pytest.approx(3 * [sizes.mean().item()])
        assert found[f"distance/{norm}_end"]["std"] == pytest.approx(sizes.std().item(), rel=1e-4)
    draw = FixedNoise(0).uniform(torch.arange(N), like=images.double()).flatten(1)
    for name, eps in (("8", 8 / 255), ("127.5", 0.5)):
        expected = eps * torch.linalg.vector_norm(draw, dim=1).mean().item()
        assert three(found, f"distance_uniform_{name}/l2") == pytest.approx(3 * [expected])
        assert three(found, f"distance_uniform_{name}/linf")[0] == pytest.approx(eps, rel=2e-3)


def test_black_images_are_as_far_as_their_clean_ones_are_bright(run, tmp_path):
    found, seen = run(tmp_path, ScalingPurifier(factor=0.0), levels=[])
    images = torch.cat([batch["image"] for batch in seen.batches])
    after = torch.linalg.vector_norm(images.double().flatten(1), dim=1)
    assert found["distance/l2_end"]["value"] == pytest.approx(after.mean().item(), rel=1e-6)
    assert found["distance/l2_max"] == found["distance/l2_end"]  # behind the input
    assert found["distance/l2_init"]["value"] < 1


def test_a_diffusion_has_the_distances_of_every_state(run, tmp_path):
    """Against a plain loop of eqs. 1-3: the states not clipped and not rescaled."""
    denoiser = TinyDenoiser()
    purifier = DiffusionPurifier(
        tiny.Float64Denoiser(denoiser), t_star=20, num_steps=4, sampler=DDIMSampler()
    )
    found, seen = run(tmp_path, purifier, levels=["32/255"], seed=5)
    clean = torch.cat([batch["image"] for batch in seen.batches]).double()
    perturbed = {
        "distance": seen.adversarial("fixed").double(),
        "distance_uniform_32": clean
        + 32 / 255 * FixedNoise(5).uniform(torch.arange(N), like=clean),
    }
    visited = [5, 10, 15, 20]
    for name, images in perturbed.items():
        states = reference_chain(denoiser, images, 5, torch.arange(N), visited, variance=None)
        assert len(states) == 9
        away = torch.stack([(state - clean).flatten(1) for state in states], 1)
        expected = torch.stack([away.norm(dim=2), away.abs().amax(2)], 1)
        stored = tensors(tmp_path)[f"{name}/trajectory"]
        torch.testing.assert_close(stored.double(), expected, rtol=1e-4, atol=1e-5)
        for row, norm in enumerate(("l2", "linf")):
            curve = expected[:, row]
            means = [curve[:, 0].mean(), curve.amax(1).mean(), curve[:, -1].mean()]
            assert three(found, f"{name}/{norm}") == pytest.approx([m.item() for m in means], 1e-4)
    assert expected.amax() > 1  # a state outside [0, 1] was not clipped


def test_the_perturbations_are_the_same_draw_scaled_and_not_clipped(run, tmp_path):
    purifier = NoisyPurifier()
    _, seen = run(tmp_path, purifier, batch_size=7, levels=["128/255", "8/255"], seed=3)
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
    run(tmp_path, NoisyPurifier(), levels=["8/255"])
    rows = [json.loads(line) for line in (tmp_path / "records" / "rows.jsonl").open()]
    stored = tensors(tmp_path)
    for name in ("distance", "distance_uniform_8"):
        own = [row for row in rows if row["protocol"] == name]
        assert [row["index"] for row in own] == list(range(N))
        curves = stored[f"{name}/trajectory"]
        assert curves.shape == (N, 2, 2)
        ends = [row["l2_end"] for row in own]
        assert ends == pytest.approx(curves[:, 0, -1].tolist(), rel=1e-6)
        highest = [row["linf_max"] for row in own]
        assert highest == pytest.approx(curves[:, 1].amax(1).tolist(), rel=1e-6)


def test_batches_do_not_matter(run, tmp_path):
    found, _ = run(tmp_path / "3", NoisyPurifier())
    other, _ = run(tmp_path / "7", NoisyPurifier(), batch_size=7)
    assert found.keys() == other.keys()
    assert len(found) == 6 * 6
    for name, statistics in other.items():
        assert found[name] == pytest.approx(statistics, rel=1e-6), name


def test_a_resumed_run_is_the_undisturbed_one_and_draws_all_of_it(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "lit_purify.callbacks.distances.distance_figure",
        lambda *args: drawn.append(args) or Picture(),
    )
    whole, _ = run(tmp_path / "whole", NoisyPurifier(), levels=["8/255"])
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(tmp_path / "broken", Failing(4), levels=["8/255"])
    assert len(drawn) == 1  # nothing of the broken one
    resumed, _ = run(tmp_path / "broken", Failing(None), levels=["8/255"], resume=True)
    assert resumed == whole
    again, _ = run(tmp_path / "broken", Failing(0), levels=["8/255"], resume=True)
    assert again == whole  # nothing was missing, so nothing was evaluated
    for curves, steps in drawn:
        assert steps == [0, 0]
        assert [curve.label for curve in curves] == ["attack", "uniform 8/255"]
        for curve, first in zip(curves, drawn[0][0], strict=True):
            assert torch.equal(curve.distances, first.distances)
    assert len(drawn) == 3


class Picture:
    def savefig(self, path):
        path.write_bytes(b"")


def test_the_picture(run, tmp_path):
    run(tmp_path, NoisyPurifier())
    assert (tmp_path / "distances.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("forward", "steps"), [("stepwise", 9), ("one_shot", 6), ("none", 5)])
def test_the_axis_goes_up_and_down(run, tmp_path, monkeypatch, forward, steps):
    drawn = []
    monkeypatch.setattr(
        "lit_purify.callbacks.distances.distance_figure",
        lambda *args: drawn.append(args) or Picture(),
    )
    purifier = DiffusionPurifier(
        tiny.Float64Denoiser(TinyDenoiser()), t_star=20, num_steps=4, forward_process=forward
    )
    run(tmp_path, purifier, levels=[])
    ((curves, axis),) = drawn
    up = {"stepwise": [0, 5, 10, 15, 20], "one_shot": [0, 20], "none": [20]}[forward]
    assert axis == [*up, 15, 10, 5, 0]
    assert curves[0].distances.shape == (N, 2, steps)


def test_what_is_measured_is_in_the_settings(run, tmp_path):
    run(tmp_path, IdentityPurifier(), levels=["16/255", 0.1])
    settings = read_summary(tmp_path / "summary.json")["settings"]
    assert settings["distance_inputs"] == ["attack", "uniform 16/255", "uniform 25.5/255"]


def test_without_an_attack_on_fixed_noise_there_is_only_the_uniform_noise(run, tmp_path):
    found, _ = run(tmp_path, IdentityPurifier(), protocols=("base",), levels=["8/255"])
    assert {name.split("/")[0] for name in found} == {"distance_uniform_8"}
    found, _ = run(tmp_path / "t", IdentityPurifier(), protocols=("transfer",), levels=[])
    assert {name.split("/")[0] for name in found} == {"distance"}  # attacked under fixed noise too


def test_nothing_to_measure_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="nothing to measure"):
        run(tmp_path, IdentityPurifier(), protocols=("base",), levels=[])


@pytest.mark.parametrize("levels", [[0], ["-8/255"], [1.5], ["nan"]])
def test_levels_are_checked(levels):
    with pytest.raises(InputError, match="half-widths"):
        DistanceTrajectories(levels=levels)


def test_a_level_is_given_once():
    with pytest.raises(InputError, match="twice"):
        DistanceTrajectories(levels=["8/255", 8 / 255])
    with pytest.raises(InputError, match="fraction such as 8/255"):
        DistanceTrajectories(levels=["wide"])


def test_without_records_there_is_no_picture(npz, tmp_path):
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier(), protocols=("fixed",))
    evaluate(module, CIFAR10DataModule(source=npz), DistanceTrajectories(), folder=tmp_path)
    assert not list(tmp_path.rglob("*.png"))

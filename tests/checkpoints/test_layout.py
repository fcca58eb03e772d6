"""Tensors that do not fit their network are named."""

import pytest
import torch
from published_networks import DDPM, Guided, random_state, shapes_of

from lit_purify.checkpoints import load_denoiser

NETS = [
    DDPM(widths=(32, 64), attention=(1,), layers=1),
    Guided(width=32, factors=(1, 2), attention=(1,), layers=1, outputs=3),
]


@pytest.fixture(params=NETS, ids=["ddpm", "guided"])
def state(request):
    """The tensors of a sound file."""
    return random_state(shapes_of(request.param))


@pytest.fixture
def refused(tmp_path, refusal):
    """Loads tensors from a file and expects words in the refusal."""

    def load(tensors, *words):
        path = tmp_path / "model.ckpt"
        torch.save(tensors, path)
        with refusal(path, *words):
            load_denoiser(str(path))

    return load


def test_any_tensor_missing(state, refused):
    for name in list(state)[::4]:
        refused({key: x for key, x in state.items() if key != name}, f"{name} is missing")


def test_a_tensor_too_many(state, refused):
    refused(state | {"surplus.weight": torch.zeros(1)}, "surplus.weight is unknown")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x[:-1], "has shape (2,) instead of (3,)"),
        (lambda x: x.int(), "torch.int32"),
        (lambda x: x * torch.tensor([1, torch.nan, 1]), "is not finite"),
        (lambda x: x / torch.tensor([1, 0, 1]), "is not finite"),
        (lambda x: torch.empty_like(x, device="meta"), "no plain values"),
        (lambda x: x.to_sparse(), "no plain values"),
    ],
)
def test_a_tensor_of_another_kind(state, refused, spoil, words):
    name = list(state)[-1]  # a bias
    refused(state | {name: spoil(state[name])}, name, words)


def test_many_faults_are_counted(state, refused):
    few = {name: x for name, x in state.items() if not name.startswith("mid")}
    refused(few, f"(and {len(state) - len(few) - 3} more)")

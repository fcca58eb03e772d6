"""Score-SDE's checkpoints: which of the tensors in them are used, and where they belong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_networks import ScoreSDE, output, random_state, shapes_of

from lit_purify.checkpoints import load_denoiser
from lit_purify.diffusion import LinearSchedule
from lit_purify.types import InputError

NET = ScoreSDE(widths=(16, 32, 32), attention=(1,), layers=1)


def residual(width_in: int, width: int, *, shortcut: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of a residual block's tensors in the order of the file."""
    shapes: dict[str, tuple[int, ...]] = {
        "GroupNorm_0.weight": (width_in,),
        "GroupNorm_0.bias": (width_in,),
        "Conv_0.weight": (width, width_in, 3, 3),
        "Conv_0.bias": (width,),
        "Dense_0.weight": (width, 512),
        "Dense_0.bias": (width,),
        "GroupNorm_1.weight": (width,),
        "GroupNorm_1.bias": (width,),
        "Conv_1.weight": (width, width, 3, 3),
        "Conv_1.bias": (width,),
    }
    more = {"Conv_2.weight": (width, width_in, 1, 1), "Conv_2.bias": (width,)}
    return shapes | more if shortcut else shapes


def attention(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"GroupNorm_0.weight": (width,)}
    shapes["GroupNorm_0.bias"] = (width,)
    for i in range(4):
        shapes |= {f"NIN_{i}.W": (width, width), f"NIN_{i}.b": (width,)}
    return shapes


def layer(*shape: int) -> dict[str, tuple[int, ...]]:
    return {"weight": shape, "bias": shape[:1]}


PUBLISHED = [
    *(layer(512, 128), layer(512, 512), layer(128, 3, 3, 3)),  # 0 .. 2
    # Down: 32 x 32, 16 x 16, 8 x 8, 4 x 4.
    *[residual(128, 128, shortcut=False)] * 8,
    residual(128, 128, shortcut=True),  # 11
    *(residual(128, 256, shortcut=True), attention(256)),
    *[residual(256, 256, shortcut=False), attention(256)] * 7,
    residual(256, 256, shortcut=True),  # 28
    *[residual(256, 256, shortcut=False)] * 8,
    residual(256, 256, shortcut=True),  # 37
    *[residual(256, 256, shortcut=False)] * 8,
    # Between.
    *(residual(256, 256, shortcut=False), attention(256), residual(256, 256, shortcut=False)),
    # Up: 4 x 4, 8 x 8, 16 x 16, 32 x 32.
    *[residual(512, 256, shortcut=True)] * 9,
    residual(256, 256, shortcut=True),  # 58
    *[residual(512, 256, shortcut=True)] * 9,
    residual(256, 256, shortcut=True),  # 68
    *[residual(512, 256, shortcut=True)] * 8,
    *(residual(384, 256, shortcut=True), attention(256)),
    residual(256, 256, shortcut=True),  # 79
    residual(384, 128, shortcut=True),
    *[residual(256, 128, shortcut=True)] * 8,
    *(layer(128), layer(3, 128, 3, 3)),  # 89, 90
]
"""The modules of cifar10_ddpmpp_deep_continuous in their order, each with its tensors."""


def checkpoint(folder: Path, **changes: Any) -> Path:
    """A training's checkpoint as Score-SDE writes it, of random weights.

    Args:
        folder: for the file.
        **changes: entries that are other ones.
    """
    averaged = {f"module.{name}": x for name, x in random_state(shapes_of(NET)).items()}
    last = {name: x + 1 for name, x in averaged.items()}
    content = {
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": []},
        "model": {"module.sigmas": torch.ones(1000, dtype=torch.float64), **last},
        "ema": {"decay": 0.9999, "num_updates": 3, "shadow_params": list(averaged.values())},
        "step": 400_000,
    }
    torch.save({**content, **changes}, folder / "checkpoint_8.pth")
    return folder / "checkpoint_8.pth"


def test_the_tensors_of_the_published_file_in_their_order() -> None:
    assert len(PUBLISHED) == 91
    table = {
        f"all_modules.{place}.{name}": shape
        for place, module in enumerate(PUBLISHED)
        for name, shape in module.items()
    }
    assert list(shapes_of(ScoreSDE()).items()) == list(table.items())


def test_the_averaged_weights_of_a_training_are_taken(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    denoiser = load_denoiser(str(path))
    state = random_state(shapes_of(NET))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([1, 1000])
    torch.testing.assert_close(denoiser(x, t), output(state, NET, x, t), rtol=0, atol=1e-5)
    assert denoiser.source == "checkpoint_8, averaged weights (ema.shadow_params)"
    assert denoiser.file == path
    assert not any(p.requires_grad for p in denoiser.parameters())


def test_a_state_dict_without_a_training_is_the_same(tmp_path: Path) -> None:
    state = {f"module.{name}": x for name, x in random_state(shapes_of(NET)).items()}
    torch.save({**state, "module.sigmas": torch.ones(1000)}, tmp_path / "bare.pth")
    bare = load_denoiser(str(tmp_path / "bare.pth"))
    of_training = load_denoiser(str(checkpoint(tmp_path))).state_dict()
    assert all(torch.equal(x, of_training[name]) for name, x in bare.state_dict().items())
    assert bare.source == "bare"


def test_it_equals_the_published_network_in_float64(tmp_path: Path) -> None:
    denoiser = load_denoiser(str(checkpoint(tmp_path))).double()
    state = {name: x.double() for name, x in random_state(shapes_of(NET)).items()}
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 3, 16, 16, generator=generator, dtype=torch.float64)
    t = torch.tensor([1, 371, 1000])
    want = output(state, NET, x, t)
    assert want.dtype == torch.float64
    torch.testing.assert_close(denoiser(x, t), want, rtol=0, atol=1e-10)


def test_its_variances_are_the_linear_ones(tmp_path: Path) -> None:
    """0.1 .. 20 in continuous time, divided by 1000 steps."""
    betas = load_denoiser(str(checkpoint(tmp_path))).schedule.betas
    np.testing.assert_allclose(betas, np.linspace(0.1 / 1000, 20 / 1000, 1000), rtol=1e-14)
    assert torch.equal(betas, LinearSchedule().betas)


def shadow(change: Any) -> dict[str, Any]:
    values = list(random_state(shapes_of(NET)).values())
    return {"ema": {"shadow_params": change(values)}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (shadow(lambda x: x[:-1]), "averaged weights in ema.shadow_params"),
        (shadow(lambda x: [*x, x[0]]), "averaged weights in ema.shadow_params"),
        (shadow(lambda x: [x[0].T, *x[1:]]), "same shapes"),
        (shadow(lambda x: [x[0], x[2], x[1], *x[3:]]), "same shapes"),
        (shadow(lambda x: ["x", *x[1:]]), "same shapes"),
        (shadow(lambda x: [x[0] * torch.nan, *x[1:]]), "all_modules.0.weight is not finite"),
        (shadow(lambda _: None), "list of tensors in ema.shadow_params"),
        ({"ema": 3}, "list of tensors in ema.shadow_params"),
        ({"model": []}, "state_dict in model"),
        ({"model": {}}, "0 in model"),
        ({"model": {3: 4}}, "1 in model"),
    ],
)
def test_checkpoints_that_do_not_fit(
    changes: dict[str, Any], message: str, tmp_path: Path, refusal: Any
) -> None:
    path = checkpoint(tmp_path, **changes)
    with refusal(path, message):
        load_denoiser(str(path))


def test_a_training_of_another_network(tmp_path: Path) -> None:
    model = {"module.conv.weight": torch.ones(3)}
    path = checkpoint(tmp_path, model=model, ema={"shadow_params": [torch.ones(3)]})
    with pytest.raises(InputError, match=r"no denoiser known here \(its first tensor is 'conv"):
        load_denoiser(str(path))

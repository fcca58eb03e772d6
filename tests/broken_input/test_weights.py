"""Files of weights."""

import json
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from refusals import Make, dangling, evil, nothing, unreadable, write
from safetensors.torch import load, save, save_file


def _header(**architecture: Any) -> dict[str, str]:
    architecture = tiny.ARCHITECTURE | architecture
    return {"lit_purify": json.dumps({"format": "small_unet/1", "architecture": architecture})}


def _tensors() -> dict[str, torch.Tensor]:
    return {name: x.half().contiguous() for name, x in tiny.denoiser().network.state_dict().items()}


def _sound_weights() -> bytes:
    return save(_tensors(), metadata=_header())


def _spoiled(change: Callable[[dict[str, torch.Tensor]], object]) -> Make:
    def make(path: Path) -> None:
        tensors = _tensors()
        change(tensors)
        save_file(tensors, path, metadata=_header())

    return make


def _one(value: float) -> Make:
    return _spoiled(lambda tensors: tensors["conv_in.weight"].view(-1)[5].fill_(value))


def _described(**architecture: Any) -> Make:
    return lambda path: save_file(_tensors(), path, metadata=_header(**architecture))


def _headed(header: dict[str, str] | None) -> Make:
    return lambda path: save_file(_tensors(), path, metadata=header)


DAMAGED = "ownload it again"
FOREIGN = "denoiser of this project"
UNBUILT = "cannot build"

WEIGHTS: dict[str, tuple[Make, str] | tuple[Make, str, str]] = {
    "NaN": (_one(math.nan), "conv_in.weight is not finite"),
    "infinite": (_one(math.inf), "conv_in.weight is not finite"),
    "minus infinite": (_one(-math.inf), "conv_in.weight is not finite"),
    "beyond float32": (
        _spoiled(lambda t: t.update({k: x.double() * 0 + 1e300 for k, x in t.items()})),
        "is not finite",
    ),
    "integers": (_spoiled(lambda t: t.update({k: x.int() for k, x in t.items()})), "torch.int32"),
    "a tensor missing": (_spoiled(lambda t: t.pop("conv_in.weight")), "missing"),
    "a tensor too many": (_spoiled(lambda t: t.update(extra=torch.zeros(1))), "extra is unknown"),
    "a tensor misshapen": (
        _spoiled(lambda t: t.update({"conv_in.weight": torch.zeros(1)})),
        "(8, 12, 3, 3)",
    ),
    "no tensors": (_spoiled(dict.clear), "no tensors"),
    "no description": (_headed(None), FOREIGN),
    "description of another program": (_headed({"format": "pt"}), FOREIGN),
    "description no JSON": (_headed({"lit_purify": "{"}), FOREIGN),
    "description a list": (_headed({"lit_purify": "[1]"}), FOREIGN),
    "description nested": (_headed({"lit_purify": "[" * 100_000}), FOREIGN),
    "architecture no object": (
        _headed({"lit_purify": '{"format": "small_unet/1", "architecture": "abc"}'}),
        FOREIGN,
    ),
    "foreign version": (
        _headed({"lit_purify": '{"format": "small_unet/99", "architecture": {}}'}),
        FOREIGN,
    ),
    "unknown architecture": (_described(attention=True), UNBUILT),
    "no groups": (_described(norm_num_groups=0), UNBUILT),
    "groups that do not divide": (_described(norm_num_groups=3), UNBUILT),
    "negative width": (_described(block_out_channels=[-8, 16]), UNBUILT),
    "no levels": (_described(block_out_channels=[]), UNBUILT),
    "null levels": (_described(block_out_channels=None), UNBUILT),
    "fractional width": (_described(block_out_channels=[8.0, 16.5]), UNBUILT),
    "no patch": (_described(patch_size=0), UNBUILT),
    "negative patch": (_described(patch_size=-2), UNBUILT),
    "odd patch": (_described(patch_size=5), UNBUILT),
    "size in text": (_described(image_size="32"), UNBUILT),
    "negative layers": (_described(layers_per_block=-1), UNBUILT),
    "terabytes by its description": (_described(block_out_channels=[10**6, 10**6]), "has shape"),
    "overflow by its description": (
        _described(block_out_channels=[4 * 10**30, 4 * 10**30]),
        UNBUILT,
    ),
    "for other images": (_described(image_size=16), "(3, 16, 16)"),
    "cut off": (lambda p: p.write_bytes(_sound_weights()[:9000]), DAMAGED),
    "cut off in the header": (lambda p: p.write_bytes(b"\0" * 4), DAMAGED),
    "header without end": (write(b"\xff" * 8 + b"{}"), DAMAGED),
    "header nested": (write(struct.pack("<Q", 9000) + b"[" * 9000), DAMAGED),
    "zero bytes": (write(b""), "is empty"),
    "web page": (write("<!DOCTYPE html><html></html>"), "is a web page"),
    "error of a server": (write('{"message": "Not Found"}'), DAMAGED),
    "Git LFS pointer": (write("version https://git-lfs.github.com"), "lfs pull"),
    "pickle in disguise": (lambda p: p.write_bytes(pickle.dumps(evil(p))), DAMAGED),
    "pickle with code": (
        lambda p: p.write_bytes(pickle.dumps(evil(p))),
        "network.state_dict()",
        "w.pt",
    ),
    "pickle by its name": (
        lambda p: p.write_bytes(pickle.dumps(evil(p))),
        "network.state_dict()",
        "w.pkl",
    ),
    "old pickle with code": (lambda p: p.write_bytes(pickle.dumps(evil(p), 2)), "w.pt", "w.pt"),
    "torch file with code": (lambda p: torch.save({"a": evil(p)}, p), "could run code", "w.pt"),
    "old torch file with code": (
        lambda p: torch.save({"a": evil(p)}, p, _use_new_zipfile_serialization=False),
        "could run code",
        "w.pth",
    ),
    "torch file, sound": (lambda p: torch.save(_tensors(), p), "safetensors", "w.pt"),
    "torch file of a list": (lambda p: torch.save([1, 2], p), "holds a list", "w.pt"),
    "other suffix": (write(b"x"), "ends in '.npy'", "w.npy"),
    "no file": (nothing, "no weights file"),
    "a folder": (Path.mkdir, "no weights file"),
    "dangling link": (dangling, "no weights file"),
    "unreadable": (unreadable, "cannot be opened"),
}


def refuse_weights(what, refuse, **more):
    make, word, *name = WEIGHTS[what]
    (name,) = name or ["w.safetensors"]
    refuse("test", "--model.purifier.denoiser.path={input}", word, make, name, **more)


@pytest.mark.parametrize("what", WEIGHTS)
def test_it_is_refused(what, refuse):
    refuse_weights(what, refuse)


def test_a_process_says_so_and_fails(refuse):
    refuse_weights("torch file with code", refuse, process=True)


def test_what_is_spoiled_was_sound():
    assert set(load(_sound_weights())) == set(_tensors())

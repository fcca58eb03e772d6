"""The networks of RobustBench's model zoo, by data set, threat model and name.

The architecture is the zoo's own entry, and which file is read and what is done to the names in it
is decided by RobustBench's own ``load_model``. Three things differ. A file is read without running
code in it. A network must find all its tensors in the file. And a missing file is downloaded by
:mod:`lit_purify.weights.download`, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.embedded import CLASS_NAMES
from lit_purify.classifiers.patching import patched
from lit_purify.classifiers.robustbench_import import import_robustbench
from lit_purify.classifiers.wrap import from_module
from lit_purify.types import InputError, did_you_mean
from lit_purify.weights import (
    WEIGHTS,
    cache_folder,
    drive_url,
    mirrored,
    weights_file,
)
from lit_purify.weights.content import sha256
from lit_purify.weights.download import fetch_file
from lit_purify.weights.files import load_content, load_state_dict

Dataset = Literal["cifar10", "cifar100", "imagenet"]
ThreatModel = Literal["Linf", "L2", "corruptions", "corruptions_3d"]

NUM_CLASSES: dict[str, int] = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}

CONSTANTS = frozenset({"mu", "sigma", "mean", "std"})
"""Last names of a normalisation's constants, which some published files leave to the network."""

MARKS = ("model_preact_hl1.1.weight", "conv1.scores")
"""Tensors by which RobustBench knows the CIFAR files that hold more than the network."""

FOLDER = "robustbench"
"""Folder in the cache, and of a mirror."""


def robustbench_classifier(
    *,
    name: str = "Standard",
    dataset: Dataset = "cifar10",
    threat_model: ThreatModel = "Linf",
    file: str | None = None,
    model_dir: str | None = None,
) -> Classifier:
    """A network of RobustBench's model zoo with its weights.

    It takes images in [0, 1] and stands on the CPU in evaluation mode, with frozen weights. What
    it returns is what RobustBench's network returns, to the bit. (A few ensembles return
    probabilities; RobustBench attacks them as they are, and so does this project.)

    A missing file is downloaded from where RobustBench has it, and that of ImageNet's
    ``Standard_R50``, which is torchvision's, from PyTorch.

    Args:
        name: the entry, such as ``Standard`` or ``Engstrom2019Robustness``;
            :func:`robustbench_names` lists them.
        dataset: what the network was trained on.
        threat_model: what it was trained against; ``corruptions_3d`` has the same networks as
            ``corruptions``.
        file: the weights; nothing is downloaded then. Of an ensemble it is the name that its files
            ``<file>_m0.pt``, ``<file>_m1.pt``, ... begin with.
        model_dir: folder with ``<dataset>/<threat_model>/<name>.pt``, as RobustBench fills it;
            ``None`` is the folder ``robustbench`` in the cache (``$LIT_PURIFY_CACHE``). The file of
            ``Standard_R50`` lies in PyTorch's folder instead, and is known by its hash.

    Raises:
        InputError: there is no such entry; its weights are missing and cannot be downloaded, are
            damaged, hold code, or belong to another network; or the network needs a GPU.
    """
    entries = _zoo(dataset, threat_model)
    threats = threat_model.removesuffix("_3d")
    if name not in entries:
        raise InputError(
            f"RobustBench has no network {name!r} for {dataset} and {threat_model}"
            f"{did_you_mean(name, entries)}; all {len(entries)} names: "
            'python -c "from lit_purify.classifiers import robustbench_names as n; '
            f"print(*n('{dataset}', '{threat_model}'))\""
        )
    # The initial weights, which are replaced, would be drawn from the global RNG.
    with torch.random.fork_rng(devices=[]):
        network, files = _load(name, dataset, threats, file, model_dir)
    preprocessing = None
    if dataset == "imagenet":
        is_timms = entries[name]["gdrive_id"] is None
        preprocessing = _timm_preprocessing(network) if is_timms else entries[name]["preprocessing"]
    size = int(re.findall(r"\d+", preprocessing)[-1]) if preprocessing else 32
    source = f"RobustBench {dataset}/{threats}/{name}"
    if len(files) > 1:  # a run reports the hash of one file only
        hashes = ", ".join(f"{part.name} SHA-256 {sha256(part)[:12]}" for part in files)
        source = f"{source} ({hashes})"
    classifier = from_module(
        network,
        num_classes=NUM_CLASSES[dataset],
        image_shape=(3, size, size),
        source=source,
        file=files[0] if len(files) == 1 else None,
    )
    classifier.preprocessing = preprocessing
    classifier.class_names = _class_names(dataset)
    return classifier


def robustbench_names(
    dataset: Dataset = "cifar10", threat_model: ThreatModel = "Linf"
) -> tuple[str, ...]:
    """The entries of RobustBench's model zoo for a data set and a threat model.

    Raises:
        InputError: the zoo has none for the two.

    Example:
        >>> "Standard_R50" in robustbench_names("imagenet", "Linf")
        True
    """
    return tuple(_zoo(dataset, threat_model))


def _zoo(dataset: str, threat_model: str) -> Mapping[str, Mapping[str, Any]]:
    zoo = import_robustbench("robustbench.model_zoo").model_dicts
    known = {
        (of.value, threat.value): entries
        for of, threats in zoo.items()
        for threat, entries in threats.items()
    }
    # The networks against both kinds of corruptions are kept in one place.
    known |= {(of, f"{kind}_3d"): e for (of, kind), e in known.items() if kind == "corruptions"}
    if (dataset, threat_model) not in known:
        raise InputError(
            f"RobustBench has no networks for dataset {dataset!r} and threat_model "
            f"{threat_model!r}; expected {', '.join(map(' and '.join, known))}"
        )
    return known[dataset, threat_model]


def _load(
    name: str, dataset: str, threat_model: str, file: str | None, model_dir: str | None
) -> tuple[nn.Module, list[Path]]:
    """A network with its weights, by RobustBench's own function, and the files it was read from."""
    utils = import_robustbench("robustbench.utils")
    imagenet = import_robustbench("robustbench.model_zoo.imagenet")
    timm = utils.timm
    folder = cache_folder() / FOLDER if model_dir is None else Path(model_dir)
    expected = folder / dataset / threat_model / f"{name}.pt"
    used: list[Path] = []

    def fetch(address: str, path: Path | str) -> None:
        if file is None:
            _fetch(address, Path(path), folder)

    def read(path: Path | str, **_: Any) -> Mapping[str, Any]:
        if file is not None:  # to the name of an ensemble's file RobustBench appends a number
            path = f"{file}{str(path).removeprefix(str(expected))}"
        used.append(Path(path))
        content = load_content(path)
        if not isinstance(content, Mapping):
            raise RuntimeError(f"it holds a {type(content).__name__} and no named tensors")
        return content

    def timm_network(timm_name: str, *, num_classes: int, **_: Any) -> nn.Module:
        fetch(timm.get_pretrained_cfg(timm_name).url, expected)
        return _timm_network(timm, timm_name, num_classes, read(expected))

    def resnet50(**_: Any) -> nn.Module:
        from torchvision.models import resnet50

        used.append(weights_file("resnet50_imagenet") if file is None else Path(file))
        network = resnet50()
        network.load_state_dict(load_state_dict(used[-1]), strict=True)
        return network

    # What torchvision or timm load by themselves would be downloaded unchecked and unpickled.
    is_torchvisions = dataset == "imagenet" and "Standard" in name
    torchvision = {"pt_models": SimpleNamespace(resnet50=resnet50)} if is_torchvisions else {}
    replaced = {
        # It makes a folder, and asks for a download, where it finds nothing.
        "os": SimpleNamespace(path=SimpleNamespace(exists=lambda _: True, isfile=lambda _: False)),
        "download_gdrive_new": fetch,
        "torch": SimpleNamespace(load=read, device=torch.device),
        "timm": SimpleNamespace(is_model=timm.is_model, create_model=timm_network),
        "_safe_load_state_dict": partial(_load_every_tensor, utils._safe_load_state_dict),
    }
    try:
        with patched(vars(imagenet), torchvision), patched(vars(utils), replaced):
            network = utils.load_model(
                name, model_dir=folder, dataset=dataset, threat_model=threat_model
            )
    except InputError:
        raise
    except Exception as error:  # RobustBench looks into a file without checking what it finds
        if used:
            raise _wrong_file(f"{name!r} for {dataset} and {threat_model}", used, error) from error
        reason = str(error).split("\n", 1)[0]
        raise InputError(  # a few entries move constants to a GPU
            f"RobustBench's {name!r} cannot be built on this machine ({reason}); use a machine "
            "with an NVIDIA GPU, or another entry"
        ) from error
    return network, used


def _fetch(address: str, path: Path, folder: Path) -> None:
    """Download a file into a folder of RobustBench's layout, unless it is there.

    RobustBench publishes no hashes: what cannot be read as weights is refused and not kept.

    Args:
        address: an address, or the number of a file in Google Drive.
        path: where RobustBench looks for the file.
        folder: of the layout; a mirror has the file by the path below it.

    Raises:
        InputError: it is missing and cannot be downloaded.
    """
    for weights in WEIGHTS.values():  # known by more than an address
        if weights.path == path:
            path = weights_file(weights.name)
    if path.is_file():
        return
    page = url = address
    if not address.startswith("https://"):
        page, url = f"https://drive.google.com/file/d/{address}/view", drive_url(address)
    where = mirrored(f"{FOLDER}/{path.relative_to(folder).as_posix()}") or url
    try:
        fetch_file(where, path, known_hash=None, size=None)
    except InputError as error:
        raise InputError(
            f"the weights {str(path)!r} are missing, and could not be fetched from {where} "
            f"({error}); download {page} in a browser and save it as that file, or give the path "
            "of a copy as file"
        ) from error


def _timm_network(
    timm: ModuleType, name: str, num_classes: int, content: Mapping[str, Any]
) -> nn.Module:
    """A network that RobustBench leaves to timm, which renames and loads the tensors, strictly."""
    state = content.get("state_dict", content)
    network = timm.create_model(
        name,
        num_classes=num_classes,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": state, "custom_load": False},
    )
    for part in network.modules():  # which keep the tensors of the file a second time
        config = getattr(part, "pretrained_cfg", None)
        if isinstance(config, dict):
            config.pop("state_dict", None)
    return network.eval()


def _load_every_tensor(
    load: Callable[..., nn.Module],
    network: nn.Module,
    name: str,
    state: Mapping[str, Tensor],
    dataset: Any,
) -> nn.Module:
    """Load tensors, and refuse a file that holds others than those of the network.

    RobustBench's own function, ``load``, decides about the constants of a normalisation. Beyond
    that it forgives whatever else is missing or left over where these are missing: a ResNet-34
    passes for a ResNet-18.
    """
    missing, unexpected = (
        [key for key in keys if key.rsplit(".", 1)[-1] not in CONSTANTS]
        for keys in network.load_state_dict(state, strict=False)
    )
    if dataset.value != "imagenet" and any(mark in unexpected for mark in MARKS):
        unexpected = []
    if missing or unexpected:
        lacks = f"it lacks {len(missing)} tensors, such as {missing[0]!r}" if missing else ""
        more = f"it holds {len(unexpected)} more, such as {unexpected[0]!r}" if unexpected else ""
        raise RuntimeError(" and ".join(filter(None, (lacks, more))))
    return load(network, name, state, dataset)


def _wrong_file(entry: str, files: Sequence[Path], error: Exception) -> InputError:
    lines = [line.strip() for line in str(error).split("\n")]
    reason = lines[1] if len(lines) > 1 else lines[0]  # torch's first line names the class only
    if not isinstance(error, RuntimeError):
        reason = f"{type(error).__name__} {reason}"
    found = " and ".join(repr(str(file)) for file in files)
    return InputError(
        f"{found} does not hold the weights of RobustBench's {entry}: {reason.rstrip('.')}; give "
        "the file of this entry, or the name of the entry that the file belongs to"
    )


def _timm_preprocessing(network: nn.Module) -> str:
    inner: Any = network.model if isinstance(network, nn.Sequential) else network
    config = inner.default_cfg
    size = config["input_size"][1]
    shorter = int(size / config["crop_pct"])
    how = {"bilinear": "", "bicubic": "Bicubic"}[config["interpolation"]]
    return f"{how}Res{shorter}Crop{size}"


def _class_names(dataset: str) -> tuple[str, ...]:
    if dataset == "imagenet":
        from torchvision.models import ResNet50_Weights

        return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    return CLASS_NAMES if dataset == "cifar10" else ()

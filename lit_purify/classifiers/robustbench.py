"""The networks of RobustBench's model zoo, by data set, threat model and name.

The architecture is the zoo's own entry, and what is done to the names in a checkpoint is done by
RobustBench's own ``load_model``. Three things differ. A file is read without running code in it.
A network must find all its tensors in the file. And nothing is loaded from elsewhere on the way.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lit_purify.checkpoints.files import load_content, load_state_dict, sha256
from lit_purify.checkpoints.weights import weights_file
from lit_purify.classifiers import robustbench_files
from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.embedded import CLASS_NAMES
from lit_purify.classifiers.robustbench_import import import_robustbench
from lit_purify.classifiers.wrap import from_module
from lit_purify.types import InputError

Dataset = Literal["cifar10", "cifar100", "imagenet"]
ThreatModel = Literal["Linf", "L2", "corruptions", "corruptions_3d"]

NUM_CLASSES: dict[str, int] = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}

CONSTANTS = frozenset({"mu", "sigma", "mean", "std"})
"""Last names of a normalisation's constants, which some published files leave to the network."""

MARKS = ("model_preact_hl1.1.weight", "conv1.scores")
"""Tensors by which RobustBench knows the CIFAR files that hold more than the network."""


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
    entry = _entry(name, dataset, threat_model)
    files = _weights_files(entry, file, model_dir)
    # The initial weights, which are replaced, would be drawn from the global RNG.
    with torch.random.fork_rng(devices=[]):
        network = _network(entry, files)
    preprocessing = _preprocessing(entry, network)
    size = int(re.findall(r"\d+", preprocessing)[-1]) if preprocessing else 32
    source = f"RobustBench {entry.dataset}/{entry.threat_model}/{entry.name}"
    if len(files) > 1:  # a run reports the hash of one file only
        hashes = ", ".join(f"{part.name} SHA-256 {sha256(part)[:12]}" for part in files)
        source = f"{source} ({hashes})"
    classifier = from_module(
        network,
        num_classes=NUM_CLASSES[entry.dataset],
        image_shape=(3, size, size),
        source=source,
        file=files[0] if len(files) == 1 else None,
    )
    classifier.preprocessing = preprocessing
    classifier.class_names = _class_names(entry.dataset)
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


@dataclass(frozen=True)
class _Entry:
    """What the zoo says of a network."""

    name: str
    dataset: str
    threat_model: str  # of the folder
    content: Mapping[str, Any]

    @property
    def from_torchvision(self) -> bool:
        """Whether the weights are torchvision's, which the entry's builder would load itself."""
        return self.dataset == "imagenet" and "Standard" in self.name

    @property
    def timm_name(self) -> str | None:
        """Name among timm's models, of the networks that RobustBench leaves to timm."""
        import timm

        name = f"{self.name}_{self.dataset}_{self.threat_model}".lower().replace("-", "_")
        return name if timm.is_model(name) else None


def _zoo(dataset: str, threat_model: str) -> Mapping[str, Mapping[str, Any]]:
    enums = import_robustbench("robustbench.model_zoo.enums")
    zoo = import_robustbench("robustbench.model_zoo").model_dicts
    if dataset not in get_args(Dataset) or threat_model not in get_args(ThreatModel):
        raise InputError(
            f"dataset is {dataset!r} and threat_model {threat_model!r}; expected one of "
            f"{', '.join(get_args(Dataset))} and one of {', '.join(get_args(ThreatModel))}."
        )
    of_dataset = zoo[enums.BenchmarkDataset(dataset)]
    threat = enums.ThreatModel(_folder(threat_model))
    if threat not in of_dataset:
        raise InputError(
            f"RobustBench has no networks for {dataset} and {threat_model}; choose threat_model "
            f"from {', '.join(known.value for known in of_dataset)}."
        )
    return of_dataset[threat]


def _folder(threat_model: str) -> str:
    """RobustBench keeps the networks against both kinds of corruptions in one place."""
    return threat_model.removesuffix("_3d")


def _entry(name: str, dataset: str, threat_model: str) -> _Entry:
    entries = _zoo(dataset, threat_model)
    if name not in entries:
        lower = {known.lower(): known for known in entries}
        close = [lower[key] for key in difflib.get_close_matches(name.lower(), lower, 3, 0.4)]
        raise InputError(
            f"RobustBench has no network {name!r} for {dataset} and {threat_model}"
            f"{'; close are ' + ', '.join(close) if close else ''}. All {len(entries)} names: "
            'python -c "from lit_purify.classifiers import robustbench_names as n; '
            f"print(*n('{dataset}', '{threat_model}'))\""
        )
    return _Entry(name, dataset, _folder(threat_model), entries[name])


def _weights_files(entry: _Entry, file: str | None, model_dir: str | None) -> list[Path]:
    """The files of an entry, downloaded where they are missing and none was named."""
    where = entry.content["gdrive_id"]
    number = len(where) if isinstance(where, list) else None
    if file is not None:
        return robustbench_files.parts(Path(file), number)
    if entry.from_torchvision:
        return [weights_file("resnet50_imagenet")]
    if entry.timm_name is not None:
        import timm

        where = timm.get_pretrained_cfg(entry.timm_name).url
    path = Path(entry.dataset, entry.threat_model, f"{entry.name}.pt")
    return [
        robustbench_files.fetched(part.as_posix(), address, model_dir)
        for part, address in zip(
            robustbench_files.parts(path, number), where if number else [where], strict=True
        )
    ]


def _network(entry: _Entry, files: Sequence[Path]) -> nn.Module:
    """The network with its weights, by RobustBench's own function."""
    utils = import_robustbench("robustbench.utils")
    network = None if entry.timm_name else _built(entry, files[0])
    remaining = iter(files)
    dataset = utils.BenchmarkDataset(entry.dataset)
    threat_model = utils.ThreatModel(entry.threat_model)
    content = {**entry.content, "model": lambda: network}
    load_model = _with_names(
        utils.load_model,
        all_models={dataset: {threat_model: {entry.name: content}}},
        # It asks whether the files are there, which they are, and reads them one by one.
        os=SimpleNamespace(path=SimpleNamespace(exists=lambda _: True, isfile=lambda _: True)),
        torch=SimpleNamespace(load=lambda *_, **__: _named(next(remaining)), device=torch.device),
        timm=SimpleNamespace(
            is_model=lambda _: entry.timm_name is not None,
            create_model=lambda name, *, num_classes, **_: _timm_network(
                name, num_classes, files[0]
            ),
        ),
        _safe_load_state_dict=_load_every_tensor,
    )
    try:
        return load_model(entry.name, dataset=dataset, threat_model=threat_model)
    except InputError:
        raise
    except Exception as error:  # RobustBench looks into the file without checking what it finds
        raise _wrong_file(entry, files, error) from error


def _built(entry: _Entry, file: Path) -> nn.Module:
    """The network of an entry with random weights; those of torchvision's are the file's."""
    build = entry.content["model"]
    if entry.from_torchvision:
        # Would download without a check, and unpickle code.
        build = _with_names(
            build, pt_models=SimpleNamespace(resnet50=lambda **_: _resnet50(entry, file))
        )
    try:
        return build()
    except (RuntimeError, AssertionError) as error:  # a few entries move constants to a GPU
        reason = str(error).split("\n", 1)[0]
        raise InputError(
            f"RobustBench's {entry.name!r} cannot be built on this machine ({reason}). Use a "
            "machine with an NVIDIA GPU, or another entry."
        ) from error


def _resnet50(entry: _Entry, file: Path) -> nn.Module:
    from torchvision.models import resnet50

    network = resnet50()
    try:
        network.load_state_dict(load_state_dict(file), strict=True)
    except RuntimeError as error:
        raise _wrong_file(entry, [file], error) from error
    return network


def _timm_network(name: str, num_classes: int, file: Path) -> nn.Module:
    """A network that RobustBench leaves to timm, which renames and loads the tensors, strictly."""
    import timm

    content = _named(file)
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


def _named(file: Path) -> Mapping[str, Any]:
    content = load_content(file)
    if not isinstance(content, Mapping):
        raise RuntimeError(f"it holds a {type(content).__name__} and no named tensors")
    return content


def _load_every_tensor(
    network: nn.Module, name: str, state: Mapping[str, Tensor], dataset: Any
) -> nn.Module:
    """Load tensors, and refuse a file that holds others than those of the network.

    RobustBench's own function decides about the constants of a normalisation. Beyond that it
    forgives whatever else is missing or left over where these are missing: a ResNet-34 passes for
    a ResNet-18.
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
    utils = import_robustbench("robustbench.utils")
    return utils._safe_load_state_dict(network, name, state, dataset)


def _with_names(function: FunctionType, **names: Any) -> Callable[..., Any]:
    """A function with other values for some of the global names in it; its module keeps its own."""
    own = FunctionType(
        function.__code__, {**function.__globals__, **names}, argdefs=function.__defaults__
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return own


def _wrong_file(entry: _Entry, files: Sequence[Path], error: Exception) -> InputError:
    lines = [line.strip() for line in str(error).split("\n")]
    reason = lines[1] if len(lines) > 1 else lines[0]  # torch's first line names the class only
    if not isinstance(error, RuntimeError):
        reason = f"{type(error).__name__} {reason}"
    found = " and ".join(repr(str(file)) for file in files)
    return InputError(
        f"{found} does not hold the weights of RobustBench's {entry.name!r} for {entry.dataset} "
        f"and {entry.threat_model}: {reason.rstrip('.')}. Give the file of this entry, or the name "
        "of the entry that the file belongs to."
    )


def _preprocessing(entry: _Entry, network: nn.Module) -> str | None:
    if entry.dataset != "imagenet":
        return None
    if entry.timm_name is None:
        return entry.content["preprocessing"]
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

"""How much memory a computation may take on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

from lit_purify.types import InputError

GIB = 2**30
_SHARE_OF_GPU = 0.8
_SHARE_OF_HOST = 0.4
_DIGITS = 3


def usable_bytes(device: torch.device) -> int:
    """Memory for tensors on a device: part of what is free, rounded down to three bits.

    The rest is for what no plan of tensors sees: workspaces of libraries, gaps between tensors of
    changing size (an active set that shrinks), and what else the machine begins to do. Of a GPU a
    fifth is left, which is an assumption. On a CPU a process has been seen to grow by 2.2 times the
    plan (0.81 GiB for 0.37, 64 images through the shipped denoiser, one thread), as convolutions
    are unfolded there: 0.4 of its memory is taken. The rounding makes the answer the same from run
    to run, while what is free varies.

    Args:
        device: a CUDA device, whose own memory counts; any other shares the machine's.

    Raises:
        InputError: the machine does not tell.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch keeps for tensors to come is free as well.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        usable = int(_SHARE_OF_GPU * free)
    else:
        usable = int(_SHARE_OF_HOST * host_bytes())
    grain = 2 ** max(0, usable.bit_length() - _DIGITS)
    return usable // grain * grain


def host_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process can still allocate: of the machine, or of its control groups (Linux).

    Args:
        root: where ``proc`` and ``sys`` are.

    Raises:
        InputError: the system does not tell.
    """
    try:
        table = (root / "proc/meminfo").read_text()
        free = [1024 * _entry(table, "MemAvailable:")]
    except (OSError, KeyError):
        raise InputError(
            "this system does not tell how much memory is free (no MemAvailable in /proc/meminfo); "
            "expected Linux; give numbers in place of auto (batch_size, memory_budget_gib)"
        ) from None
    return max(0, min([*free, *_left_to_groups(root)]))


def _left_to_groups(root: Path) -> Iterator[int]:
    """What the limits of the control groups of this process leave it, of versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, used, cache = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        group = PurePosixPath(path)
        # A limit further up holds too; in a container the path may be that of the machine outside.
        for place in (group, *group.parents):
            folder = root / "sys/fs/cgroup" / mount / str(place).lstrip("/")
            try:
                # Files that were read and can be dropped do not count as used.
                dropped = _entry((folder / "memory.stat").read_text(), cache)
                yield int((folder / limit).read_text()) + dropped - int((folder / used).read_text())
            except (OSError, KeyError, ValueError):  # no such group, or the limit is "max"
                continue


def _entry(table: str, name: str) -> int:
    """The number behind a name in a table of lines."""
    return int({words[0]: words[1] for words in map(str.split, table.splitlines())}[name])

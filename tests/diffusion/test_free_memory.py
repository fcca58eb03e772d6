"""How much memory is free, as the system tells it."""

from pathlib import Path

import pytest
import torch

from lit_purify.diffusion import free_memory
from lit_purify.diffusion.free_memory import host_bytes, usable_bytes
from lit_purify.types import InputError

MIB = 2**20
V1 = "4:memory:/jobs/7\n2:cpu,cpuacct:/jobs/8\n"
V2 = "0::/jobs/7\n"


def system(root: Path, *, free: int = 1000, cgroup: str = "") -> Path:
    """A machine with so many MiB available."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: 9999999 kB\nMemFree: 5 kB\nMemAvailable: {free * 1024} kB\n"
    )
    (root / "proc/self/cgroup").write_text(cgroup)
    return root


def group(root: Path, folder: str, limit: str | int, used: int, cache: int) -> None:
    """A control group with a limit, in MiB."""
    place = root / "sys/fs/cgroup" / folder
    place.mkdir(parents=True, exist_ok=True)
    limit = f"{limit * MIB}" if isinstance(limit, int) else limit
    first = folder.startswith("memory")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit_file, used_file, entry = (
        names if first else ("memory.max", "memory.current", "inactive_file")
    )
    (place / limit_file).write_text(f"{limit}\n")
    (place / used_file).write_text(f"{used * MIB}\n")
    (place / "memory.stat").write_text(f"anon 5\n{entry} {cache * MIB}\nslab 7\n")


@pytest.mark.parametrize(("cgroup", "mount"), [(V1, "memory/"), (V2, "")])
class TestControlGroups:
    def test_a_limit_holds_less_what_is_used_and_cannot_be_dropped(self, tmp_path, cgroup, mount):
        root = system(tmp_path, cgroup=cgroup)
        group(root, f"{mount}jobs/7", limit=800, used=500, cache=200)
        assert host_bytes(root) == 500 * MIB

    def test_one_further_up_holds_too(self, tmp_path, cgroup, mount):
        root = system(tmp_path, cgroup=cgroup)
        group(root, f"{mount}jobs/7", limit=800, used=100, cache=0)
        group(root, f"{mount}jobs", limit=900, used=600, cache=10)
        assert host_bytes(root) == 310 * MIB

    def test_in_a_container_the_limit_lies_at_the_root(self, tmp_path, cgroup, mount):
        root = system(tmp_path, cgroup=cgroup)
        group(root, mount or ".", limit=300, used=100, cache=50)
        assert host_bytes(root) == 250 * MIB

    def test_the_machine_may_have_less(self, tmp_path, cgroup, mount):
        root = system(tmp_path, free=100, cgroup=cgroup)
        group(root, f"{mount}jobs/7", limit=800, used=100, cache=0)
        assert host_bytes(root) == 100 * MIB

    def test_a_group_that_is_over_its_limit_leaves_nothing(self, tmp_path, cgroup, mount):
        root = system(tmp_path, cgroup=cgroup)
        group(root, f"{mount}jobs/7", limit=100, used=200, cache=0)
        assert host_bytes(root) == 0


def test_without_a_limit_the_machine_counts(tmp_path):
    root = system(tmp_path, cgroup=V2)
    group(root, "jobs/7", limit="max", used=100, cache=0)
    assert host_bytes(root) == 1000 * MIB
    (root / "proc/self/cgroup").unlink()
    assert host_bytes(root) == 1000 * MIB


@pytest.mark.parametrize("table", [None, "MemTotal: 5 kB\n"])
def test_a_system_that_does_not_tell_is_named(tmp_path, table):
    if table is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text(table)
    with pytest.raises(InputError, match="batch_size"):
        host_bytes(tmp_path)


def test_this_machine_tells():
    assert 0 < usable_bytes(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    ("free", "usable"), [(1000, 384), (1100, 384), (1119, 384), (1121, 448), (5, 2), (1, 0)]
)
def test_a_margin_is_left_and_small_changes_change_nothing(monkeypatch, free, usable):
    monkeypatch.setattr(free_memory, "host_bytes", lambda: free)
    assert usable_bytes(torch.device("cpu")) == usable


def test_on_a_gpu_its_own_memory_counts_and_what_pytorch_holds_unused(monkeypatch):
    device = torch.device("cuda", 1)
    numbers = {"mem_get_info": (1000, 9999), "memory_reserved": 500, "memory_allocated": 220}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, {device: number}.__getitem__)
    assert usable_bytes(device) == 1024

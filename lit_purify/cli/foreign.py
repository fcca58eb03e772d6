"""What other libraries raise where a user can change something, and what to change."""

from __future__ import annotations

import errno
import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

_FILE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO),
}
"""What a disk or its owner can refuse."""

_REQUIREMENT = re.compile(r"Requirement '(([\w.-]+)[^']*)' not met")
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.I)
_NO_COMPILER = re.compile(r"No working C\+\+ compiler|InvalidCxxCompiler|working triton", re.I)
_RESUME = "a run goes on where it stopped by --resume RUN_FOLDER"


def advice(error: BaseException) -> str | None:
    """What was wrong and what to do, in one line; ``None`` where nobody here knows."""
    return next((line for kind in _KINDS if (line := kind(error)) is not None), None)


def _file_system(error: BaseException) -> str | None:
    if not isinstance(error, OSError) or error.errno not in _FILE_SYSTEM:
        return None
    name = error.filename
    where = f": {name}" if name else ", in the folder of the run"
    if name == gettempdir():
        other = "name another folder by the environment variable TMPDIR"
    elif name is None or "lightning_logs" in Path(str(name)).parts:
        other = f"choose another folder by --trainer.default_root_dir; {_RESUME}"
    else:
        other = "name another place where this one was named"
    return f"{error.strerror}{where}; make room, or {other}"


def _package(error: BaseException) -> str | None:
    if not isinstance(error, ImportError):
        return None
    if found := _REQUIREMENT.search(str(error)):
        needed, name = found.groups()
        return f"the package {name} is not installed; install it: pip install '{needed}'"
    name = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name in ("", "lit_purify"):
        return None
    return (
        f"there is no module {error.name}; correct the class path that names it, or write "
        f"{name}.py in the working directory, or install its package, such as pip install {name}"
    )


def _memory(error: BaseException) -> str | None:
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not (named or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)))):
        return None
    device = "GPU" if "CUDA" in str(error) else "machine"
    return (
        f"the memory of the {device} is full; take fewer images at once by --data.batch_size N, or "
        f"keep less of the chain by --model.purifier.memory_budget_gib GIB; {_RESUME}"
    )


def _compiler(error: BaseException) -> str | None:
    if not _NO_COMPILER.search(f"{type(error).__name__} {error}"):
        return None
    return (
        "torch.compile found no compiler that works; install g++ (on a GPU also triton), or set "
        "--model.compile false"
    )


def _slurm(error: BaseException) -> str | None:
    if "ntasks" not in str(error):
        return None
    return (
        "the SLURM variables (SLURM_NTASKS) do not fit --trainer.devices and --trainer.num_nodes: "
        "start every task by srun with --ntasks-per-node equal to the devices, or, for one "
        "process, unset SLURM_NTASKS"
    )


def _not_plain(error: BaseException) -> str | None:
    if type(error).__name__ != "RepresenterError":
        return None
    return (
        f"an argument cannot be written to config.yaml ({error}); leave out the class that has it, "
        "or name one of your own whose arguments are text, numbers and classes"
    )


_KINDS: tuple[Callable[[BaseException], str | None], ...] = (
    *(_file_system, _package, _memory, _compiler, _slurm, _not_plain),
)


def is_of_the_parser(error: BaseException) -> bool:
    """Whether jsonargparse itself refuses something."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "jsonargparse" in Path(frames[-1].filename).parts


def raised_by_a_plugin(error: BaseException) -> str | None:
    """The message of what a user's own code raised, and where; ``None`` of any other code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    if not own:
        return None
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"{message}, raised in {own[-1].filename}, line {own[-1].lineno} ({own[-1].name}); correct "
        "the arguments, or that code"
    )


def _is_installed(file: str) -> bool:
    """Whether code is this package's, another one's or Python's."""
    return file.startswith("<") or any(Path(folder) in Path(file).parents for folder in _INSTALLED)


_INSTALLED = {
    *(str(Path(__file__).parents[1]), sysconfig.get_path("stdlib")),
    *(sysconfig.get_path("purelib"), sysconfig.get_path("platlib")),
}

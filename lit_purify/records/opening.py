"""A run takes its folder: to start there, or to go on with what is recorded in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_purify.records.header import Header, differences, read_header, write_header
from lit_purify.records.store import RunStore
from lit_purify.types import InputError


def open_run(
    folder: Path, header: Header, session: dict[str, Any], *, resume: bool
) -> tuple[RunStore, Header, frozenset[int]]:
    """Take a folder for a run, and write down that it is running.

    Args:
        folder: the ``records/`` folder of the run; made where it is missing.
        header: of a run that starts.
        session: what is said of this session.
        resume: go on with a run that is there; without it such a folder is refused.

    Returns:
        The records, open for the first process to write; the header, of a run that goes on the one
        from its start; dataset indices of the samples that are recorded.

    Raises:
        InputError: the folder has a run, and it is not to be resumed or another one; it is damaged;
            or another process writes there.
    """
    earlier = read_header(folder)
    if earlier is not None:
        _check_resumed(folder.parent, earlier, header, resume=resume)
        header = earlier
    store = RunStore(folder, header["run"])
    try:
        done = store.done()
        if earlier is not None:
            _warn_of_other_versions(earlier, session)
        header["status"] = "running"
        header["sessions"].append(session)
        write_header(folder, header)
    except BaseException:
        store.close()
        raise
    return store, header, done


def _check_resumed(run: Path, earlier: Header, header: Header, *, resume: bool) -> None:
    if not resume:
        raise InputError(
            f"{run} holds a run already; go on with it by --resume {run}, or write "
            "elsewhere: --trainer.default_root_dir FOLDER"
        )
    if changes := _changes(earlier["identity"], header["identity"]):
        raise InputError(
            f"the configuration is not that of the run in {run}: {'; '.join(changes)}; "
            f"--resume {run} alone repeats the run's own, without --resume a new run starts"
        )


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where two identities differ; the settings follow from the configuration, mostly."""
    config: list[str] = []
    if None not in (old["config"], new["config"]):  # runs from Python have none
        config = list(differences(old["config"], new["config"]))
    return config or list(differences(old["settings"], new["settings"]))


def _warn_of_other_versions(header: Header, session: dict[str, Any]) -> None:
    changes = list(differences(header["sessions"][-1]["versions"], session["versions"]))
    if changes:
        print(f"warning: the run goes on with other software: {'; '.join(changes)}", flush=True)

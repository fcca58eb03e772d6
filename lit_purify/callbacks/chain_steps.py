"""The steps of a purifier's states, as figures of its chain want them."""

from __future__ import annotations

from lit_purify.diffusion import Purifier


def chain_steps(purifier: Purifier) -> list[int]:
    """The t of every state, up to t* and down again; the input's is t* where nothing noises it."""
    depths = purifier.depths
    if all(t == 0 for process, t in depths if process == "forward"):
        t_star = purifier.settings().get("t_star", 0)
        assert isinstance(t_star, int)
        return [t_star, *(t for _, t in depths[1:])]
    return [t for _, t in depths]

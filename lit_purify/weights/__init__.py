"""Published weights: which there are, how they come here, how they are known to be whole.

Nothing of this needs PyTorch.
"""

from lit_purify.weights.catalogue import (
    CACHE,
    MIRROR,
    WEIGHTS,
    Weights,
    cache_folder,
    drive_url,
    fetch,
    find,
    hash_in_words,
    mirrored,
    verified_copy,
    weights_file,
)

__all__ = [
    "CACHE",
    "MIRROR",
    "WEIGHTS",
    "Weights",
    "cache_folder",
    "drive_url",
    "fetch",
    "find",
    "hash_in_words",
    "mirrored",
    "verified_copy",
    "weights_file",
]

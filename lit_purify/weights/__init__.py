"""Published weights: which there are, how they come here, how they are known to be whole.

Nothing of this needs PyTorch.
"""

from lit_purify.weights.catalogue import WEIGHTS, drive_url, find
from lit_purify.weights.fetching import MIRROR, fetch, mirrored, verified_copy, weights_file
from lit_purify.weights.published import CACHE, Weights, cache_folder, hash_in_words

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

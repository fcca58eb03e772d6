"""Files of weights for tests, and one with code in it."""

import io
import os

import torch


def saved(content):
    """A weights file, as bytes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Code:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)

"""Shared by all tests, and puts this folder on their path: ``from oracles import ...``."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)  # on networks this small, threads only wait for each other

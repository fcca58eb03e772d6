"""Puts this folder on the import path: tests write ``from oracles import ...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

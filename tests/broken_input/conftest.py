"""Hostile and broken input, all of it through the command line.

Whatever is wrong: exit status 2, one line on stderr that begins with ``error: ``, no code of the
input executed, and the results of earlier runs in the same root directory as they were. The tables
in this folder are the inputs tried: how each is made, and a word of the line that refuses it.
"""

import pytest
from refusals import Refuse, Workplace


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("workplace"))


@pytest.fixture
def refuse(workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Refuse(workplace, tmp_path, lambda: capsys.readouterr().err)

"""Which folder a run gets, which one it goes on with, and what of a configuration decides."""

import copy
import json
from pathlib import Path

import pytest
import tiny

from lit_purify.cli import main
from lit_purify.cli.arguments import AUTO, with_run_config
from lit_purify.cli.runs import deciding, find_run
from lit_purify.records import records_folder
from lit_purify.records.header import new_header, write_header
from lit_purify.types import InputError


@pytest.fixture
def run(tmp_path):
    """A run folder with its configuration."""
    folder = tmp_path / "lightning_logs" / "version_3"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("attack: null\n")
    return folder


class TestRunConfig:
    @pytest.mark.parametrize("form", [["--resume", "{}"], ["--resume={}"]])
    def test_the_configuration_of_the_run_comes_first(self, run, form):
        words = [word.format(run) for word in form]
        before, after = ["--data.limit", "3"], ["--config", "more.yaml"]
        expected = ["test", "--config", str(run / "config.yaml"), *before, *words, *after]
        assert with_run_config(["test", *before, *words, *after]) == expected

    @pytest.mark.parametrize(
        "args",
        [
            [],
            ["test"],
            ["test", "--config", "a.yaml"],
            ["test", "--resume", AUTO],
            ["test", f"--resume={AUTO}"],
            ["test", "--resume", "null"],
            ["test", "--resume"],  # what is missing the parser says
            ["test", "--resumed", "there"],
        ],
    )
    def test_other_arguments_stay(self, args):
        assert with_run_config(args) == args
        assert with_run_config(tuple(args)) == args

    def test_a_folder_may_be_called_as_it_likes(self, run):
        folder = run.rename(run.with_name("a = b"))
        words = with_run_config(["test", f"--resume={folder}"])
        assert words[2] == str(folder / "config.yaml")

    @pytest.mark.parametrize("name", ["", "lightning_logs", "nowhere", "autoo"])
    def test_a_folder_without_a_run_is_refused(self, run, name):
        folder = run.parents[1] / name
        with pytest.raises(InputError, match=r"no run in .*config\.yaml; give the folder"):
            with_run_config(["test", "--resume", str(folder)])


CONFIG = {
    "seed_everything": False,
    "model": {
        "class_path": "lit_purify.PurifiedClassifier",
        "init_args": {
            "seed": 0,
            "purifier": {
                "class_path": "lit_purify.diffusion.DiffusionPurifier",
                "init_args": {"memory_budget_gib": 2, "t_star": 50},
            },
        },
    },
    "attack": {
        "class_path": "tiny.Own",
        "init_args": {"eps": "8/255", "batch_size": 1, "parts": [{"root": 2, "steps": 3}, 7]},
    },
    "data": {
        "class_path": "tiny.TwoClasses",
        "init_args": {"source": "a.npz", "batch_size": 64, "num_workers": 4, "root": "d"},
    },
    "trainer": {
        **{"precision": "32-true", "deterministic": None, "callbacks": [{"class_path": "C"}]},
        **{"devices": 2, "logger": True, "accelerator": "gpu", "default_root_dir": "x"},
    },
    "measure": {"jacobian": {"init_args": {"top_k": 2}}, "images": None},
    "resume": AUTO,
    "next_step": "read it",
    "verbose": False,
    "ckpt_path": None,
}


def changed(path, value):
    """The configuration with one value changed."""

    def put(part, names):
        if not names:
            return value
        head, *rest = names
        if isinstance(part, list):
            return [put(item, rest) if str(k) == head else item for k, item in enumerate(part)]
        return {**part, head: put(part.get(head, {}), rest)}

    return put(CONFIG, path.split("."))


class TestDeciding:
    def test_by_hand(self):
        expected = copy.deepcopy(CONFIG)
        for name in ("resume", "next_step", "verbose", "ckpt_path"):
            del expected[name]
        for name in ("devices", "logger", "accelerator", "default_root_dir"):
            del expected["trainer"][name]
        for name in ("batch_size", "num_workers", "root"):
            del expected["data"]["init_args"][name]
        del expected["model"]["init_args"]["purifier"]["init_args"]["memory_budget_gib"]
        del expected["measure"]["images"]
        assert deciding(CONFIG) == expected

    def test_measurements_that_are_off_decide_nothing(self):
        assert "measure" not in deciding({**CONFIG, "measure": {"jacobian": None}})

    def test_the_configuration_itself_stays(self):
        before = repr(CONFIG)
        deciding(CONFIG)
        assert repr(CONFIG) == before


IGNORED = [
    *(f"data.init_args.{name}" for name in ("batch_size", "download", "num_workers", "root")),
    "model.init_args.purifier.init_args.memory_budget_gib",
    *(f"trainer.{name}" for name in ("devices", "logger", "accelerator", "default_root_dir")),
    *("resume", "next_step"),
]
DECIDING = [
    *("seed_everything", "model.class_path", "model.init_args.seed"),
    "model.init_args.purifier.init_args.t_star",
    *(f"attack.init_args.{name}" for name in ("eps", "parts.0.steps", "parts.1")),
    # Of a user's own class they decide.
    *(f"attack.init_args.{name}" for name in ("batch_size", "parts.0.root")),
    "data.init_args.source",
    *(f"trainer.{name}" for name in ("precision", "deterministic", "callbacks")),
    "measure.jacobian",
]


@pytest.mark.parametrize("path", [*IGNORED, *DECIDING])
def test_what_may_change_when_a_run_is_resumed(path):
    assert (deciding(changed(path, "other")) == deciding(CONFIG)) == (path in IGNORED)


HEADER = new_header({"config": {"a": 1}, "settings": {}}, 3)


def record(root: Path, version: int, config: object) -> Path:
    """A run of a configuration."""
    folder = root / "lightning_logs" / f"version_{version}"
    write_header(records_folder(folder), new_header({"config": config, "settings": {}}, 3))
    return folder


def found(root, config):
    """The run that is gone on with."""
    return find_run(root / "lightning_logs", config)[0]


class TestFindRun:
    def test_the_newest_by_its_number(self, tmp_path):
        for version in (2, 10, 9):
            record(tmp_path, version, {"a": 1})
        assert found(tmp_path, {"a": 1}) == tmp_path / "lightning_logs" / "version_10"

    def test_another_configuration_is_passed_over_and_that_is_said(self, tmp_path):
        expected = record(tmp_path, 0, {"a": 1, "b": [1.5, None]})
        record(tmp_path, 1, {"a": 2, "b": [1.5, None]})
        record(tmp_path, 2, {"a": 1})
        record(tmp_path, 3, None)
        logs = tmp_path / "lightning_logs"
        folder, passed_over = find_run(logs, {"a": 1, "b": [1.5, None]})
        assert folder == expected
        expected = zip((3, 2, 1), passed_over, strict=True)
        assert all(str(logs / f"version_{k}") in line for k, line in expected)
        assert "a was 2 and now is 1" in passed_over[2]

    @pytest.mark.parametrize(
        "content",
        [
            *("", "{", "[]", '{"format": "other"}', '{"identity": {}}'),
            *(json.dumps(HEADER | {"identity": it}) for it in (None, 3, {}, {"config": 3}, [])),
        ],
    )
    def test_a_damaged_run_is_passed_over(self, tmp_path, content):
        expected = record(tmp_path, 0, {"a": 1})
        for version in (1, 2):
            header = records_folder(record(tmp_path, version, {"a": 1})) / "header.json"
            header.write_text(content)
        folder, passed_over = find_run(tmp_path / "lightning_logs", {"a": 1})
        assert folder == expected
        assert len(passed_over) == 2
        assert all("header.json" in line for line in passed_over)

    def test_a_folder_without_records_is_passed_over(self, tmp_path):
        expected = record(tmp_path, 0, {})
        for name in ("version_1", "version_two", "other"):
            (tmp_path / "lightning_logs" / name).mkdir()
        assert found(tmp_path, {}) == expected

    def test_the_folder_itself_may_be_the_run(self, tmp_path):
        write_header(records_folder(tmp_path), HEADER)
        assert find_run(tmp_path, {"a": 1}) == (tmp_path, [])

    def test_where_there_is_none(self, tmp_path):
        assert found(tmp_path, {}) is None
        assert found(tmp_path / "nowhere", {}) is None
        assert not (tmp_path / "nowhere").exists()


def test_here_refuses_to_start_beside_another_configuration(tmp_path, capsys):
    args = ["test", "--config", "cifar_fixed", "--model.purifier=tiny.IdentityPurifier"]
    args += ["--model.classifier=tiny.classifier", "--model.protocols=[]", "--data.limit=2"]
    args += [f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu", "--resume=here"]
    args += tiny.UNMEASURED
    for _ in range(2):
        assert main(args) == 0
    before = sorted(tmp_path.rglob("*"))
    assert main([*args, "--model.seed=1"]) == 2
    assert "seed was 0 and now is 1" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


LOGGER = "--trainer.logger={class_path: lightning.pytorch.loggers.%s, init_args: {save_dir: %s}}"


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (["--trainer.default_root_dir=~/runs"], "runs/lightning_logs/version_0"),
        ([LOGGER % ("TensorBoardLogger", "own")], "own/lightning_logs/version_0"),
        ([LOGGER % ("CSVLogger", "own")], "own/lightning_logs/version_0"),
        ([LOGGER % ("CSVLogger", "own, name: mine, version: first")], "own/mine/first"),
        (["--trainer.default_root_dir=here", "--trainer.logger=false"], "here"),
    ],
)
def test_a_second_call_goes_on_wherever_it_was_written(
    options, place, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    args = ["test", "--config", "cifar_fixed", "--model.purifier=tiny.IdentityPurifier"]
    args += ["--model.classifier=tiny.classifier", "--model.protocols=[base]", "--attack.steps=1"]
    args += ["--data.limit=2", "--trainer.accelerator=cpu", "--resume=auto", *tiny.UNMEASURED]
    for _ in range(2):
        assert main([*args, *options]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(place)
    sessions = json.loads((tmp_path / place / "records" / "header.json").read_text())["sessions"]
    assert len(sessions) == 2
    assert len(list(tmp_path.rglob("header.json"))) == 1
    assert main([*args, *options, "--attack.steps=2"]) == (0 if "version" in place else 2)
    assert "steps was 1 and now is 2" in capsys.readouterr().err

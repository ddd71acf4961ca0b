"""Whatever a path is called, a command line means it."""

import os
import re
import string
import sys

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from masa import export
from masa.cli import app, sweep
from masa.cli.arguments import make_directory, path_arguments, quoted
from masa.cli.config_store import conf_dir
from masa.errors import ConfigError

PARSER = OverridesParser.create()
KEYS = [
    "model.name", "task.path", "task.validation.path", "benchmark.aime25.path", "ckpt",
    "hydra.run.dir", "model.cache_dir", "+model.cache_dir", "logger.wandb.save_dir",
    "engine.answers",
]  # fmt: skip
ODD = [
    "seed=0", "ü", "(1)", "it's", 'say "x"', "a&b", "a,b", "a b", " a", "a ", "[v1]", "$x", "{}",
    "{a: 1}", "a\\", "a\\'b", "a:b", "100%", "a;b", "#x", "!x", "*", "?", "<>", "|", "`", "🙂",
    "12", "007", "1e5", "true", "null", "inf", "-m", "x=y=z", "choice(1,2)", "'q'", '"q"', "~x",
    "a\tb", "@", "a+b", "f(x)", "1,2", "é", "[", "}", "${",
]  # fmt: skip


def read(argument):
    """What Hydra makes of one argument: the value of an override that sweeps nothing."""
    override = PARSER.parse_override(argument)
    assert not override.is_sweep_override()
    return override.value()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", [name for name in ODD if name != "${"])
def test_a_path_that_exists_is_a_path(key, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (name, f"{tmp_path}/{name}"):
        os.makedirs(path, exist_ok=True)
        for flags in ([], ["-m"]):
            *_, taken = path_arguments([*flags, f"{key}={path}"])
            assert read(taken) == path
            assert path_arguments([taken]) == [taken]


@pytest.mark.parametrize("name", [n for n in ODD if n not in ("null", "${", "'q'", '"q"')])
def test_and_so_is_one_that_is_still_to_be_made(name):
    (taken,) = path_arguments([f"hydra.run.dir=runs/{name}"])
    assert read(taken) == f"runs/{name}"


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_path_is_refused(key):
    with pytest.raises(ConfigError, match=f"^{re.escape(key)} is empty"):
        path_arguments([f"{key}="])


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_quotes_keep_every_text(text):
    assert read(f"model.name={quoted(text)}") == text


def test_what_is_no_path_stays():
    given = [
        "+algorithm.meta.rewards.path={_target_: a.b, weight: 1}",
        "seed=0,1", "-m", "algorithm=grpo,masa", "task.datasets=[{name: sudoku}]", "ckpt=null",
        "ckpt=last", "model.name='a b'", 'hydra.run.dir="a b"', "task.columns.problem=a.b", "~x",
        "task.path=org/name", "model=hub",
    ]  # fmt: skip
    assert path_arguments(given) == given


def test_a_sweep_over_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a=1", "ü", "x,y"):
        (tmp_path / name).mkdir()
    *_, taken = path_arguments(["-m", "model.name=a=1,ü,org/name"])
    override = PARSER.parse_override(taken)
    assert [str(v).strip("'") for v in override.sweep_string_iterator()] == ["a=1", "ü", "org/name"]
    *_, taken = path_arguments(["-m", "model.name=x,y"])
    assert read(taken) == "x,y"
    assert path_arguments(["-m", "model.name=choice(a,b)"])[-1] == "model.name=choice(a,b)"


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(path_arguments(["hydra.run.dir=~/a=b"])[0]) == f"{tmp_path}/a=b"


def test_an_interpolation_in_a_new_path_still_is_one():
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        (taken,) = path_arguments(["hydra.run.dir=runs (1)/${name}-${seed}"])
        cfg = hydra.compose("config", [taken, "name=x"], return_hydra_config=True)
    assert cfg.hydra.run.dir == "runs (1)/x-0"


def test_a_path_that_no_configuration_can_hold_is_refused(tmp_path):
    (tmp_path / "a${b}").mkdir()
    with pytest.raises(ConfigError, match="rename it"):
        path_arguments([f"model.name={tmp_path}/a${{b}}"])


@pytest.mark.parametrize("name", ["file/below", "long" * 100, "closed/x"])
def test_a_directory_that_cannot_be_made_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    if name == "closed/x":

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(ConfigError, match="hydra.run.dir=.* cannot be written to") as caught:
        make_directory(tmp_path / name, "hydra.run.dir")
    assert "\n" not in str(caught.value)


def test_a_directory_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ConfigError, match="No space left"):
        make_directory(tmp_path / "x", "hydra.run.dir")


@pytest.mark.parametrize("where", ["file/run", "x" * 300, "file"])
def test_a_run_directory_is_refused_in_one_line(where, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["masa-train", f"hydra.run.dir={tmp_path}/{where}"])
    with pytest.raises(SystemExit) as stopped:
        app.hydra_main("masa-train", "config", lambda cfg: None, lambda cfg: pytest.fail("ran"))
    line = capsys.readouterr().err
    assert stopped.value.code == 2 and line.count("\n") == 1
    assert "hydra.run.dir" in line and "choose another" in line


# --- masa-export


def exported(monkeypatch, *arguments):
    """What the command line comes to: (run, out, ckpt, dtype)."""
    called = []
    monkeypatch.setattr(export, "export", lambda *given: called.append(given))
    monkeypatch.setattr(sys, "argv", ["masa-export", *arguments])
    export.main()
    (given,) = called
    return tuple(map(str, given))


@pytest.mark.parametrize("name", [*ODD, "out=x", "ckpt=last"])
def test_masa_export_takes_any_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    given = exported(monkeypatch, name, f"out={name} 2", f"ckpt={name}.ckpt", "dtype=bfloat16")
    assert given == (name, f"{name} 2", f"{name}.ckpt", "bfloat16")
    assert exported(monkeypatch, f"out=runs/{name}", f"{tmp_path}/{name}")[:2] == (
        f"{tmp_path}/{name}",
        f"runs/{name}",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "usage"),
        (["out=x"], "usage"),
        (["run", "out="], "usage"),
        (["a", "b", "out=x"], "usage"),
        (["run", "out=x", "dtpye=x"], "there is no setting dtpye"),
        (["runs/seed=0", "out=x"], "runs/seed=0 is no run directory"),
    ],
)
def test_masa_export_refuses(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["masa-export", *arguments])
    with pytest.raises(SystemExit):
        export.main()
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1


def test_masa_export_help_is_no_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["masa-export", "--help"])
    export.main()
    printed = capsys.readouterr()
    assert "masa-export RUN out=DIR" in printed.out and not printed.err


def test_every_ascii_sign_is_tried():
    signs = set(string.punctuation) - set("".join(ODD)) - {"/", ".", "_", "^", "="}
    assert not signs, signs


def test_a_model_may_be_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("it's", "tiny_qwen3"):
        (tmp_path / name).mkdir()
    taken = path_arguments(["model=it's", "seed=1"])
    assert taken == ["model=hub", r"model.name='it\'s'", "seed=1"]
    same = ["model=tiny_qwen3", "model=missing"]
    assert path_arguments(same) == same
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        assert hydra.compose("config", taken).model.name == "it's"


def test_a_default_directory_is_named_after_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        made = sweep.run_directory("config", path_arguments(["seed=1", "optimizer.lr=1e-3"]))
    assert made.name.endswith("_lr-1e-3")


def test_a_folder_of_ones_own_options(tmp_path, monkeypatch):
    """--config-dir: in a single run, and in every job that a sweep's check composes."""
    (tmp_path / "a b, c" / "gate").mkdir(parents=True)
    (tmp_path / "a b, c" / "gate" / "mine.yaml").write_text(
        "# @package algorithm.gate\n_target_: my.Gate\nenabled: true\n"
    )
    monkeypatch.chdir(tmp_path)
    for option in (["--config-dir", "a b, c"], ["--config-dir=a b, c"], ["-cd", "a b, c"]):
        arguments = path_arguments([*option, "gate=mine", "seed=0,1"])
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            jobs = sweep.combinations("config", arguments)
            composed = [hydra.compose("config", [*job, "output_dir=x"]) for job in jobs]
        assert [(cfg.seed, cfg.algorithm.gate._target_) for cfg in composed] == [
            (0, "my.Gate"),
            (1, "my.Gate"),
        ]


@pytest.mark.parametrize("option", [["--config-dir", "nowhere"], ["--config-dir="], ["-cd"]])
def test_a_folder_that_is_not_there_is_refused(option):
    with pytest.raises(ConfigError, match="^--config-dir=.*: there is no such folder$"):
        path_arguments(option)

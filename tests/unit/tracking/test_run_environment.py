"""What a run was trained with: `environment.json`."""

import json
from importlib.metadata import version

import processes
import pytest
from synthetic_run import prompt_rows, write_run

import masa
from masa.analysis import load_run
from masa.analysis.load import RunError
from masa.analysis.report import runs_report
from masa.tracking.environment import FILE, commit, environment, record


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    return processes.run(["git", *identity, *arguments], cwd=folder).stdout.strip()


def test_versions_and_machine():
    facts = environment({"_target_": "masa.engine.vllm.VllmEngine", "dtype": "float32"})
    assert facts["engine"] == "VllmEngine" and facts["dtype"] == "float32"
    assert facts["torch"] == version("torch") and facts["masa"] == masa.__version__
    assert facts["device"]
    assert "engine" not in environment(None)


def test_the_commit_is_that_of_the_package_alone(tmp_path, monkeypatch):
    package = tmp_path / "masa" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.setattr(masa, "__file__", str(package))
    assert commit() is None
    # installed within the repository of another project
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    assert commit() is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "second")
    assert commit() == git(tmp_path, "rev-parse", "--short", "HEAD")
    package.write_text("changed")
    assert commit().endswith("-dirty")
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_a_run_keeps_each_environment_once(tmp_path):
    def kept():
        return [facts["masa"] for facts in json.loads((tmp_path / FILE).read_text())]

    record(tmp_path, {"masa": "1"}, resumed=False)
    record(tmp_path, {"masa": "1"}, resumed=True)
    assert kept() == ["1"]
    record(tmp_path, {"masa": "2"}, resumed=True)
    assert kept() == ["1", "2"]
    record(tmp_path, {"masa": "3"}, resumed=False)
    assert kept() == ["3"]


def test_the_report_names_it(tmp_path):
    rows = prompt_rows("val", 0, "a", [True, False]) + prompt_rows("train", 1, "b", [True, False])
    run = write_run(tmp_path / "run", rows)
    assert load_run(run).environments == []
    record(run, {"masa": "1", "torch": "2"}, resumed=False)
    assert load_run(run).environments == [{"masa": "1", "torch": "2"}]
    assert runs_report([load_run(run)], tmp_path)[-1].endswith("seed 0; masa 1, torch 2")
    (run / FILE).write_text("[")
    with pytest.raises(RunError, match="environment.json: not valid JSON"):
        _ = load_run(run).environments

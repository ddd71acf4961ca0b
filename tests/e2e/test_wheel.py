"""The wheel, without make and without a checkout."""

import shutil
import sys
import sysconfig
from pathlib import Path

import processes
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_folder(tmp_path):
    source, environment, empty = (tmp_path / name for name in ("source", "environment", "empty"))
    empty.mkdir()
    for name in ("masa", "conf"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)

    def run(*command, cwd=source):
        return processes.run(command, cwd=cwd).stdout

    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", ".")
    (wheel,) = source.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel)
    # the dependencies of this environment, but not the checkout that is installed in it
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    shutil.rmtree(source)

    few = ("algorithm=masa", "trainer.max_rollouts=2", "trainer.prompts_per_rollout=8")
    command = (environment / "bin" / "masa-train", "engine=hf", *few, "hydra.run.dir=run")
    run(*command, cwd=empty)
    assert (empty / "run" / "report.md").is_file()
    run(environment / "bin" / "masa-report", "run", "--out", "again", cwd=empty)
    assert (empty / "again" / "report.html").is_file()
    where = run(python, "-c", "import masa; print(masa.__file__)", cwd=empty)
    assert Path(where).is_relative_to(site)

"""Programs outside the package import what the package has."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

LOAD = """
import runpy, sys
for path in sys.argv[1:]:
    sys.path[0] = path.rpartition("/")[0]
    runpy.run_path(path, run_name="loaded")
"""
FOLDERS = ("scripts", "benchmarks", "experiments")


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_program_loads(folder):
    programs = sorted(
        str(path)
        for path in (ROOT / folder).rglob("*.py")
        # TRL has an environment of its own
        if "__main__" in path.read_text() and path.name != "trl_steps.py"
    )
    assert programs
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *programs], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]

"""Programs outside the package import what the package has."""

import sys
from pathlib import Path

import processes

ROOT = Path(__file__).parents[3]

LOAD = """
import os, runpy, sys
import lightning, torch, transformers  # once, for all folders

for line in sys.stdin:
    # programs of two folders may have modules of one name beside them
    if not (child := os.fork()):
        for path in line.split():
            sys.path[0] = path.rpartition("/")[0]
            runpy.run_path(path, run_name="loaded")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, line
"""
FOLDERS = ("scripts", "benchmarks", "experiments")


def test_every_program_loads():
    lines = []
    for folder in FOLDERS:
        programs = sorted(
            str(path)
            for path in (ROOT / folder).rglob("*.py")
            # TRL has an environment of its own
            if "__main__" in path.read_text() and path.name != "trl_steps.py"
        )
        assert programs, folder
        lines.append(" ".join(programs))
    processes.run([sys.executable, "-c", LOAD], cwd=ROOT, stdin="\n".join(lines))

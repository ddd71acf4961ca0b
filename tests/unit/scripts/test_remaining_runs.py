"""The line of `make reproduce` and `make ablations` before the first run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def printed(directory, *arguments):
    process = subprocess.run(
        [sys.executable, ROOT / "scripts" / "remaining_runs.py", *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_runs_with_a_report_are_done(tmp_path):
    markers = [str(tmp_path / f"run{i}") for i in range(16)]
    long = "16 runs left of 16, about 4 minutes each on 2 cores: 1 h 4 min"
    assert printed(tmp_path, *markers) == long
    for marker in markers[1:]:
        Path(marker).touch()
    assert printed(tmp_path, *markers).startswith("1 run left of 16, ")
    Path(markers[0]).touch()
    assert printed(tmp_path, *markers) == "0 runs left of 16"


def test_make_prints_it_before_the_first_run():
    for target in ("reproduce", "ablations"):
        process = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        assert process.stdout.index("scripts/remaining_runs.py") < process.stdout.index(
            "masa-train"
        )

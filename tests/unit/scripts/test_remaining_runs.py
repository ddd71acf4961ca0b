"""The line of `make reproduce` and `make ablations` before the first run."""

import os
import sys
from pathlib import Path

import processes

ROOT = Path(__file__).parents[3]


def printed(directory, *arguments):
    command = [sys.executable, ROOT / "scripts" / "remaining_runs.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return processes.run(command, env=environment, cwd=directory).stdout.strip()


def test_runs_with_a_report_are_done(tmp_path):
    markers = [str(tmp_path / f"run{i}") for i in range(16)]
    long = "16 runs left of 16, about 4 minutes each on 2 cores: 1 h 4 min"
    assert printed(tmp_path, *markers) == long
    for marker in markers[1:]:
        Path(marker).touch()
    assert printed(tmp_path, *markers).startswith("1 run left of 16, ")
    Path(markers[0]).touch()
    assert printed(tmp_path, *markers) == "0 runs left of 16"


def test_make_prints_it_before_the_first_run(tmp_path):
    for target, runs in (("reproduce", "CLAIM"), ("ablations", "ABLATION")):
        command = ["make", "-n", target, f"{runs}={tmp_path}"]
        process = processes.run(command, cwd=ROOT)
        assert process.stdout.index("scripts/remaining_runs.py") < process.stdout.index(
            "masa-train"
        )


def test_make_does_not_repeat_a_finished_run_after_a_new_installation(tmp_path):
    """A new release comes with a new pyproject.toml, and does not resume runs of the one before."""
    report = tmp_path / "families" / "grpo-seed0" / "report.md"
    report.parent.mkdir(parents=True)
    report.touch()
    os.utime(report, (0, 0))
    command = ["make", "-n", "reproduce", f"CLAIM={tmp_path}", "METHODS=families/grpo", "SEEDS=0 1"]
    process = processes.run(command, cwd=ROOT)
    runs = [line for line in process.stdout.splitlines() if "masa-train" in line]
    assert len(runs) == 1 and "grpo-seed1" in runs[0]

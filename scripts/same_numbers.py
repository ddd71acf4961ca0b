"""Check that a change keeps the numbers of runs: `python scripts/same_numbers.py REVISION`.

Every run below is made twice on this machine, by the code of REVISION and by that of this folder,
and compared to the last bit: each column of metrics.csv, and the exported weights. About forty
minutes on two cores. `--out` keeps both sides, each by its commit; finished runs are not repeated.
Uncommitted changes are refused: commit first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["experiment=arithmetic", "trainer.max_rollouts=12"]
EPOCHS = ["experiment=arithmetic_epochs", "trainer.max_rollouts=26"]
CONTROL = [
    *("algorithm=masa_efficient", "algorithm.control.start_step=3"),
    *("algorithm.gate.min_precision=0", "algorithm.cutoff.max_lost=1"),
]
RUNS = {
    "grpo": [*SHORT, "algorithm=grpo"],
    "masa": [*SHORT, "algorithm=masa"],
    "masa_v1": [*SHORT, "algorithm=masa_v1", "algorithm.control.start_step=3"],
    "dapo": [*SHORT, "algorithm=dapo"],
    "masa_dapo": [*SHORT, "algorithm=masa_dapo", "algorithm.control.start_step=3"],
    "masa_efficient": [*SHORT, *CONTROL],
    "hints": [*SHORT, *CONTROL, "algorithm.control.hint=true"],
    "greso": [*EPOCHS, "algorithm=greso"],
    "masa_combined": [*EPOCHS, "algorithm=masa_combined"],
    "separate": [*SHORT, "algorithm=masa", "algorithm.bc.mode=separate"],
    "ranks": [*SHORT, *CONTROL, "strategy=fsdp", "trainer.accelerator=cpu"],
}
"""Settings by the names of REVISION."""
SETTINGS: dict[str, str] = {}
"""Settings renamed since REVISION: old name=value to new name=value."""
COLUMNS: dict[str, str] = {}
"""Columns of metrics.csv renamed since REVISION: old name to new name."""


def checkout(out: Path, revision: str) -> Path:
    """Folder of a revision's runs, with its code in `code`."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not (out / commit / "code").exists():
        subprocess.run(
            [*git, "worktree", "add", "--detach", str(out / commit / "code"), commit], check=True
        )
    return out / commit


def make(code: Path, out: Path, cache: Path, overrides: list[str]) -> None:
    """Run to the end and export, unless that exists.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    environment = os.environ | {
        "PYTHONPATH": str(code), "MASA_CACHE": str(cache), "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    commands = [
        ["masa.train", *overrides, "seed=0", "ckpt=auto", f"hydra.run.dir={out}"],
        ["masa.export", str(out), f"out={out / 'model'}"],
    ]
    if (out / "model").exists():
        return
    for command in commands:
        run = subprocess.run(
            [sys.executable, "-m", *command], env=environment, cwd=code, capture_output=True,
            text=True,
        )  # fmt: skip
        if run.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{run.stdout[-2000:]}{run.stderr[-4000:]}")


def differences(old_run: Path, new_run: Path) -> list[str]:
    """Names of the columns that differ between two runs, and "weights" where those do."""
    before, now = (
        pd.read_csv(run / "metrics.csv", dtype=str).set_index("step") for run in (old_run, new_run)
    )
    before = before.rename(columns=COLUMNS)
    changes = [f"no column {name}" for name in before.columns.difference(now.columns)]
    changes += [f"new column {name}" for name in now.columns.difference(before.columns)]
    changes += [
        name
        for name in before.columns.intersection(now.columns)
        if not before[name].equals(now[name])
    ]
    old, new = (
        {
            name: tensor
            for file in sorted((run / "model").glob("*.safetensors"))
            for name, tensor in load_file(file).items()
        }
        for run in (old_run, new_run)
    )
    if old.keys() != new.keys() or any(not old[name].equal(new[name]) for name in old):
        changes.append("weights")
    return changes


def main() -> int:
    """Make both sides and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("revision", help="of the code to compare with")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "same_numbers")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    args = parser.parse_args()
    out = args.out.resolve()
    if subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", "HEAD"]).returncode:
        parser.error("there are uncommitted changes, which would not be compared: commit first")
    before, now = (checkout(out, revision) for revision in (args.revision, "HEAD"))
    if before == now:
        parser.error(f"{args.revision} is what is checked out: name the commit before the change")

    def compare(name: str) -> tuple[str, list[str]]:
        renamed = [SETTINGS.get(part, part) for part in RUNS[name]]
        try:
            make(before / "code", before / name, out / "cache", RUNS[name])
            make(now / "code", now / name, out / "cache", renamed)
        except RuntimeError as error:
            return name, [str(error)]
        return name, differences(before / name, now / name)

    different = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for name, changes in pool.map(compare, args.runs):
            different += bool(changes)
            print(f"{name}: {'the same' if not changes else '; '.join(changes)}", flush=True)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())

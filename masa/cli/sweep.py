"""Sweeps (`-m`): every job in a process of its own, whichever Hydra launcher starts it.

A job that fails does not stop the others and is named at the end; one that is finished is not run
again. In a job's directory `console.txt` holds what it printed (`console-N.txt` what task N of
several did), and `finished` marks that it ended well; `failed.txt` in the sweep's directory names
the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from filelock import FileLock, Timeout
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
)
from omegaconf import DictConfig, OmegaConf

from masa.cli.arguments import make_directory, quoted
from masa.cli.resume import check_resume_config
from masa.errors import ConfigError, require
from masa.training.child_signals import passing_on_signals

CONSOLE = "console.txt"
FINISHED = "finished"
FAILED = "failed.txt"


def combinations(config_name: str, arguments: Sequence[str]) -> list[list[str]]:
    """Overrides of jobs in which every value of a sweep comes up: each swept override at every
    value, with the first value of the others. One job where nothing is swept.

    To be called with Hydra initialised.

    Args:
        config_name: primary config; its own sweep parameters hold where `arguments` has no others.
        arguments: overrides of the command line.
    """
    job = _job(config_name, arguments)
    jobs = [[_line(override) for override in job]]
    for i, override in enumerate(job):
        for value in range(1, len(_values(override))):
            jobs.append([_line(other, value if j == i else 0) for j, other in enumerate(job)])
    return jobs


def _job(config_name: str, arguments: Sequence[str]) -> list[Override]:
    """Overrides of a sweep's jobs, those that its config sweeps included."""
    overrides = parse(arguments)
    composed = _compose(config_name, overrides)
    keys = {override.get_key_element() for override in overrides}
    configured = parse(
        [f"{key}={value}" for key, value in (composed.hydra.sweeper.get("params") or {}).items()]
    )
    job = [override for override in configured if override.get_key_element() not in keys]
    own = (override for override in overrides if not override.is_hydra_override())
    # of Hydra's settings, where to look for groups decides what the others mean
    searchpath = (o for o in overrides if o.get_key_element() == "hydra.searchpath")
    return [*job, *own, *searchpath]


def sweep_directory(config_name: str, arguments: Sequence[str]) -> Path:
    """Where the jobs of a sweep go, without failures of an earlier start.

    To be called with Hydra initialised.

    Raises:
        ConfigError: the command has no sweeps; jobs are there already and `sweep.resume` is false;
            or it is true and the directory is named after the time.
    """
    cfg = _compose(config_name, parse(arguments))
    require("sweep" in cfg, "-m is for masa-train and masa-sft: repeat the command per setting")
    HydraConfig.instance().set_config(cfg)
    if cfg.sweep.resume and "${now:" in str(OmegaConf.to_container(cfg.hydra.sweep)):
        raise ConfigError(
            "sweep.resume=true needs a directory that is found again: name the sweep's with "
            "hydra.sweep.dir=DIR, or use +sweep=NAME"
        )
    directory = Path(cfg.hydra.sweep.dir)
    if not cfg.sweep.resume and any(directory.rglob(CONSOLE)):
        raise ConfigError(
            f"{directory} holds jobs already: resume with sweep.resume=true, or choose another "
            "sweep.name"
        )
    make_directory(directory, "hydra.sweep.dir")
    (directory / FAILED).unlink(missing_ok=True)
    return directory


def run_directory(config_name: str, arguments: Sequence[str]) -> Path:
    """Where a single run goes.

    To be called with Hydra initialised.
    """
    # as Hydra composes it: the directory may be named after what the arguments change
    cfg = hydra.compose(config_name, list(arguments), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return Path(cfg.hydra.run.dir)


def parse(lines: Sequence[str]) -> list[Override]:
    """The overrides of a command line.

    To be called with Hydra initialised.

    Raises:
        ConfigError: a group is set to a number, true, false or null.
    """
    # glob() asks the loader what there is
    loader = GlobalHydra.instance().config_loader()
    overrides = OverridesParser.create(loader).parse_overrides(list(lines))
    for override in overrides:
        group = override.get_key_element().lstrip("+~").partition("@")[0]
        options = loader.get_group_options(group)
        named = all(
            isinstance(name, str | QuotedString | dict | Glob) for name in _names(override.value())
        )
        # ~GROUP names none
        deleted = override.is_delete() and override.value() is None
        require(
            not options or named or deleted,
            f"{override.input_line}: {group} takes the name of an option; it offers: "
            f"{', '.join(name for name in options if not name.startswith('_'))}",
        )
    return overrides


def _names(value: Any) -> list[Any]:
    """The values of an override, one by one where it is a sweep or a list."""
    value = value.list if isinstance(value, ChoiceSweep) else value
    return value if isinstance(value, list) else [value]


def _compose(config_name: str, overrides: Sequence[Override]) -> DictConfig:
    lines = [_line(override) for override in overrides]
    return hydra.compose(config_name, [*lines, "++output_dir=."], return_hydra_config=True)


def _values(override: Override) -> list[str]:
    """What a sweep gives the key, ends of an interval; nothing for an override without a sweep."""
    if not override.is_sweep_override():
        return []
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        return [str(swept.start), str(swept.end)]
    return list(override.sweep_string_iterator())  # type: ignore[no-untyped-call]


def _line(override: Override, index: int = 0) -> str:
    values = _values(override)
    if not values:
        return override.input_line or ""
    return f"{override.get_key_element()}={values[index]}"


def run_job(program: str, cfg: DictConfig) -> float | None:
    """Run one job as `python -m <module>` in its directory, unless it is finished.

    Where SLURM starts a job as several tasks each runs its rank of it; the first speaks for all.

    Args:
        program: console script, masa-x for the module masa.x.
        cfg: config of the job.

    Returns:
        Its `objective`, for a sweeper that optimises; None where it failed.
    """
    job = HydraConfig.get()
    directory = Path(job.runtime.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    task = int(os.environ.get("SLURM_PROCID", "0"))
    if task > 0:
        _run_rank(program, cfg, directory, task)
        return None
    started = time.perf_counter()
    try:
        with FileLock(directory / "job.lock", blocking=False):
            if is_finished(cfg, directory):
                print(f"{directory}: finished before", flush=True)
                return objective(directory)
            print(f"{directory}: {' '.join(job.overrides.task)}", flush=True)
            problem = _run(_command(program, cfg), directory / CONSOLE)
            if not problem:
                (directory / FINISHED).touch()
    except Timeout:
        problem = "another job runs here: have hydra.sweep.subdir name what the sweep varies"
    except ConfigError as error:
        problem = f"{error}; where the sweep varies it, have hydra.sweep.subdir name it"
    seconds = time.perf_counter() - started
    print(f"{directory}: {problem or 'finished'} ({seconds:.0f} s)", flush=True)
    if not problem:
        return objective(directory)
    with (Path(job.sweep.dir) / FAILED).open("a") as file:
        file.write(f"{directory / CONSOLE}: {problem}\n")
    return None


def _run_rank(program: str, cfg: DictConfig, directory: Path, task: int) -> None:
    """A task beside the first, which holds the lock and says what became of the job."""
    try:
        if not is_finished(cfg, directory):
            _run(_command(program, cfg), directory / f"console-{task}.txt")
    except ConfigError as error:
        print(f"{directory}: {error}", flush=True)


def is_finished(cfg: DictConfig, directory: Path) -> bool:
    """True where the job ended well before.

    Raises:
        ConfigError: it did so under other settings.
    """
    if not (directory / FINISHED).exists():
        return False
    check_resume_config(cfg, directory, finished=True)
    return True


def objective(directory: Path) -> float | None:
    """What a job reached at its last validation, larger is better: held-out accuracy, or that of
    `masa-sft`, minus the held-out loss. None where there is neither."""
    import pandas as pd

    path = directory / "metrics.csv"
    metrics = pd.read_csv(path) if path.exists() else pd.DataFrame()
    for name, sign in (("val/accuracy", 1), ("val/loss", -1)):
        values = metrics.get(name, pd.Series(dtype=float)).dropna()
        if len(values):
            return sign * float(values.iloc[-1])
    return None


def _command(program: str, cfg: DictConfig) -> list[str]:
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    overrides += [line for line in job.overrides.hydra if line.startswith("hydra.searchpath=")]
    if cfg.sweep.name is None:
        overrides.append(f"sweep.name={quoted(Path(job.sweep.dir).name)}")
    if cfg.sweep.resume:
        overrides.append("ckpt=auto")
    module = program.replace("-", ".")
    where = f"hydra.run.dir={quoted(job.runtime.output_dir)}"
    return [sys.executable, "-m", module, *overrides, where]


def _run(command: Sequence[str], console: Path) -> str:
    """Run to the end, with what it prints in `console`. Returns the last line of a process that
    failed, else nothing."""
    with console.open("a") as output:
        process = subprocess.Popen(
            command,
            # its last line then says what was wrong
            env=os.environ | {"HYDRA_FULL_ERROR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        with passing_on_signals(process) as received:
            try:
                status = process.wait()
            except KeyboardInterrupt:
                # the terminal has told the process as well
                process.wait()
                raise
    if received:
        raise SystemExit(status)
    if status == 0:
        return ""
    lines = console.read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last[-200:] or f"exit status {status}"

"""A real sweep: separate processes, a failing job, a second start; and its loggers."""

import struct
import sys

import processes
import pytest
import runs
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from masa.cli.sweep import objective


def start(directory, cache, *overrides, code=1):
    command = [
        sys.executable, "-m", "masa.train", "-m", *runs.SMALL, "engine=hf", "algorithm=masa",
        "algorithm.meta.group_size=2", "trainer.max_rollouts=1", "logger=[wandb,tensorboard]",
        "logger.wandb.upload_best=true", f"hydra.sweep.dir={directory}",
        # that no prompt is so short is found when the job has begun
        "hydra.sweep.subdir=limit-${algorithm.prompt_limit}", "algorithm.prompt_limit=1,2048",
        *overrides,
    ]  # fmt: skip
    return processes.run(command, code=code, env=runs.environment(cache))


@pytest.fixture(scope="module")
def swept(cache, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweeps") / "limits"
    return directory, start(directory, cache)


@pytest.mark.slow
def test_a_failing_job_stops_no_other_and_is_named(swept):
    directory, process = swept
    assert "1 job failed" in process.stderr
    assert f"{directory}/limit-1/console.txt: " in process.stderr
    assert "Traceback" not in process.stderr
    assert "prompt_limit=1" in process.stderr
    assert "prompt_limit=1" in (directory / "limit-1" / "console.txt").read_text()
    assert (directory / "limit-2048" / "report.md").exists()


@pytest.mark.slow
def test_a_second_start_needs_resume_and_runs_only_unfinished_jobs(swept, cache):
    directory, _ = swept
    refused = start(directory, cache, code=2)
    assert "sweep.resume=true" in refused.stderr
    report = directory / "limit-2048" / "report.md"
    before = report.stat().st_mtime_ns
    again = start(directory, cache, "sweep.resume=true")
    assert "/limit-1/console.txt" in again.stderr
    assert "limit-2048: finished before" in again.stdout
    assert report.stat().st_mtime_ns == before
    # what is there was run with other settings
    other = start(directory, cache, "sweep.resume=true", "optimizer.lr=1e-4")
    assert "optimizer.lr" in other.stderr
    assert report.stat().st_mtime_ns == before


def plain_sweep(directory, cache, *overrides):
    swept = {override.partition("=")[0] for override in overrides}
    small = [setting for setting in runs.SMALL if setting.partition("=")[0] not in swept]
    command = [
        sys.executable, "-m", "masa.train", "-m", *small, "engine=hf", "algorithm=grpo",
        "trainer.max_rollouts=1", f"hydra.sweep.dir={directory}", *overrides,
    ]  # fmt: skip
    processes.run(command, env=runs.environment(cache))
    return sorted(path.parent for path in directory.glob("*/finished"))


@pytest.mark.slow
def test_two_jobs_at_once_build_one_warm_start(tmp_path):
    cache, directory = tmp_path / "cache", tmp_path / "sweep"
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    jobs = plain_sweep(directory, cache, *parallel, "seed=0,1")
    assert len(jobs) == 2
    (model,) = [path for path in cache.rglob("warmstart-*") if path.is_dir()]
    assert (model / "model.safetensors").is_file()
    builders = [
        job for job in jobs if "warm start seed 0: 100%" in (job / "console.txt").read_text()
    ]
    assert len(builders) == 1
    first = [runs.rollouts(job, "val").query("step == 0") for job in jobs]
    assert set(first[0]["prompt_id"]) == set(first[1]["prompt_id"])


@pytest.mark.slow
def test_optuna_gets_the_accuracy_on_the_tuning_pool(tmp_path, cache):
    sweeper = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize"]
    jobs = plain_sweep(
        tmp_path / "sweep", cache, *sweeper, "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1",
        "task.config.held_out=tuning", "optimizer.lr=tag(log,interval(1e-4,1e-3))",
    )  # fmt: skip
    assert len(jobs) == 2
    best = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(map(objective, jobs))
    assert 1e-4 <= best["best_params"]["optimizer.lr"] <= 1e-3


def wandb_records(job):
    """The records of W&B's file: LevelDB's log format, in blocks of 32 KiB, after 7 bytes."""
    (file,) = (job / "wandb").glob("offline-run-*/*.wandb")
    data, place, content = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        block_rest = 2**15 - place % 2**15
        if block_rest < 7:
            place += block_rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        content += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield wandb_internal_pb2.Record.FromString(content)
            content = b""


def name_of(item):
    return item.key or item.nested_key[0]


@pytest.mark.slow
def test_wandb_and_tensorboard_have_the_values_of_the_csv(swept):
    job = swept[0] / "limit-2048"
    records = list(wandb_records(job))
    (run,) = [record.run for record in records if record.HasField("run")]
    assert run.run_group == swept[0].name and set(run.tags) == {"masa", "arithmetic"}
    assert "algorithm" in {item.key for record in records for item in record.config.update}
    items = [item for record in records for item in record.history.item]
    logged = {name_of(item) for item in items}
    steps = [int(item.value_json) for item in items if name_of(item) == "trainer/global_step"]
    assert steps == sorted(steps) and set(steps) == {0, 1}
    table = (job / "metrics.csv").read_text().splitlines()
    expected = set(table[0].split(",")) - {"step"}
    assert expected <= logged
    assert {"val/completions", "val/predictions", "report/overview"} <= logged
    assert any(
        record.HasField("artifact") and record.artifact.type == "model" for record in records
    )
    events = EventAccumulator(str(job / "tensorboard")).Reload()
    assert expected <= set(events.Tags()["scalars"])

"""`masa-train`: compose, build, run."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from masa import fitting
from masa.cli import app
from masa.cli.idle_settings import idle_settings
from masa.cli.recording import check_recording, recording_of
from masa.config import RunConfig, load
from masa.errors import ConfigError, require
from masa.export import check_model_name
from masa.plugins import build_plugin, refusing
from masa.rollout.samplers import PromptSampler
from masa.tasks.base import Task
from masa.tracking.checkpoints import ranked


def check(cfg: DictConfig) -> RunConfig:
    """Everything that can be refused without heavy work."""
    config = load(cfg)

    from masa.algorithm.controller import Controller
    from masa.algorithm.task_rewards import TaskRewards
    from masa.tasks.build import build_task
    from masa.tasks.demonstrations import check_written_predictions
    from masa.tasks.limits import check_task

    controller = Controller(config.algorithm, config.seed)
    build_plugin("sampler", config.sampler, PromptSampler)
    with refusing():
        task = build_task(cfg.task)
        if config.algorithm.meta.predict_mixed:
            task.templates.asking_for_mixed()
        if config.algorithm.meta.recent:
            task.templates.showing_recent()
        if config.algorithm.bc.mode != "off" and config.algorithm.bc.target == "outcome":
            check_written_predictions(task, config.algorithm.meta.predict_mixed)
    check_task(task)
    controller.require_columns(task.train)
    require_enough_prompts(task, config)
    TaskRewards(config.task.rewards, task.train)
    with refusing():
        check_model_name(cfg.model)

    # they import SymPy, PyTorch and transformers, which takes seconds
    from masa.evaluation.benchmarks import check_benchmarks

    check_benchmarks(config.benchmark)
    check_recording(cfg, config)
    with refusing():
        fitting.check_parts(cfg, config, task)
    return config


def check_directory(cfg: DictConfig, out: Path) -> None:
    """Raise ConfigError where the run cannot begin, or go on, in `out`."""
    fitting.check_directory(cfg, load(cfg), out)


def require_enough_prompts(task: Task, config: RunConfig) -> None:
    """Raise ConfigError where the pool does not fill one rollout."""
    needed = config.trainer.prompts_per_rollout
    if len(task.train) < needed:
        raise ConfigError(
            f"trainer.prompts_per_rollout is {needed}, the task has {len(task.train)} prompts"
        )


def describe(cfg: DictConfig) -> str | None:
    """The plan of the run, where `plan` asks for it."""
    config = load(cfg)
    if not config.plan:
        return None
    with refusing():
        check_model_name(cfg.model)
    fitting.plan_model(cfg)

    # they import PyTorch and transformers, which takes seconds
    from hydra.utils import instantiate

    from masa.rollout.plan import described, plan
    from masa.tasks.build import build_task

    model = instantiate(cfg.model)
    path = (
        Path(cfg.model.name).expanduser()
        if "name" in cfg.model
        else model.resolve(build_task(cfg.task))
    )
    return described(plan(config, model, path))


def run(cfg: DictConfig) -> None:
    """One training run."""
    config = load(cfg)
    fitting.in_its_directory(config, lambda out: train(cfg, config, out))


def train(cfg: DictConfig, config: RunConfig, out: Path) -> None:
    """The run, once its directory is its own."""
    import lightning as L
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from masa.evaluation.benchmarks import load_benchmarks
    from masa.rollout.build import (
        build_engine,
        build_renderer,
        build_task_rewards,
        build_writer,
        longest_sequence,
    )
    from masa.rollout.callback import RolloutCallback
    from masa.rollout.datamodule import MasaDataModule
    from masa.rollout.validation import HeldOut, ValidationCallback
    from masa.tasks.build import build_task
    from masa.tasks.limits import LimitedTask
    from masa.tracking.environment import environment, record
    from masa.tracking.loggers import WandbLogger
    from masa.training.checkpoint import CheckpointCallback
    from masa.training.memory import MemoryCallback
    from masa.training.module import MasaModule
    from masa.training.progress import ProgressCallback
    from masa.training.replay import ReplayModule
    from masa.training.stopping import StopSignal

    fitting.settle_model(cfg, out)
    started = time.perf_counter()
    recording = recording_of(cfg)
    require(
        recording is None or recording.run.resolve() != out.resolve(),
        f"engine.run={out} would be overwritten by its own replay: choose another hydra.run.dir",
    )
    ckpt = fitting.checkpoint_to_resume(cfg, config, out)
    L.seed_everything(config.seed, verbose=False)
    algorithm, settings = config.algorithm, config.trainer
    task = build_task(cfg.task)
    benchmarks = load_benchmarks(
        config.benchmark,
        task.templates,
        allow_unsafe_execution=config.allow_unsafe_execution,
    )
    model = instantiate(cfg.model)
    model_path = model.resolve(task)
    special = config.allow_special_tokens
    renderer = build_renderer(task.templates, model, model_path, algorithm, special)
    # of the task itself, as a limited one has no form of its own
    write = build_writer(task, renderer)
    task = LimitedTask(task, renderer, algorithm.prompt_limit)
    require_enough_prompts(task, config)
    held_out = [HeldOut("", task.validation, renderer, task.verify)]
    if task.unseen:
        held_out.append(HeldOut("unseen", task.unseen, renderer, task.verify))
    for benchmark in benchmarks:
        its_renderer = build_renderer(benchmark.templates, model, model_path, algorithm, special)
        held_out.append(HeldOut(benchmark.name, benchmark.prompts, its_renderer, benchmark.verify))
    longest_prompt = max(task.longest_prompt, *(part.longest_prompt for part in held_out))
    longest = longest_sequence(longest_prompt, model, model_path, algorithm, config.response_limits)

    def engine() -> Any:
        with app.native_stderr_to(out / "log.txt"):
            return build_engine(
                cfg.engine,
                model,
                model_path,
                longest,
                renderer.eos_token_ids,
                algorithm.temperature,
            )

    sampler = build_plugin("sampler", config.sampler, PromptSampler)
    stop = StopSignal()
    rollout = RolloutCallback(
        config,
        task.train,
        renderer,
        task.verify,
        build_task_rewards(config, task, renderer),
        write,
        sampler,
        engine,
        stop,
    )
    available = None if recording is None else recording.has
    validation = ValidationCallback(held_out, rollout, available)
    policy = fitting.policy_builder(model, model_path, ckpt, weights=recording is None)
    progress = ProgressCallback(settings.max_rollouts, f"{algorithm.name} seed {config.seed}")
    callbacks = [stop, rollout, validation, progress]
    module_class = MasaModule
    if recording is None:
        save = CheckpointCallback(out / "checkpoints", settings, validation, stop)
        callbacks = [MemoryCallback(config.engine), *callbacks, save]
    else:
        # no policy: nothing to hold in memory, to train or to save
        module_class = ReplayModule
    module = module_class(policy, algorithm, config.optimizer, settings, config.strategy)
    trainer = fitting.build_trainer(cfg, config, out, ckpt, callbacks)
    if trainer.is_global_zero:
        logging.getLogger("masa").info(renderer.describe())
        (out / "data.json").write_text(json.dumps(task.report, indent=2) + "\n")
        record(out, environment(cfg.engine), resumed=ckpt is not None)
        print(task.summary())
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        for line in idle_settings(overrides, algorithm):
            print(line)
        if algorithm.temperature != 1:
            print("algorithm.temperature is not 1: what learns is the policy at that temperature")
    data = MasaDataModule(
        task.train,
        sampler,
        rollout,
        settings.prompts_per_rollout,
        settings.max_rollouts,
        config.seed,
        config.ranks_per_engine,
    )

    def finish() -> None:
        if not trainer.is_global_zero:
            return
        reported = settings.report and report(out)
        if reported:
            print(f"{out / 'report.md'}  ({time.perf_counter() - started:.0f} s)")
        figures = sorted((out / "figures").glob("*.png")) if reported else []
        best = [path for _, path in ranked(out / "checkpoints")][:1]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_end(figures, best)

    fitting.fit(cfg, out, trainer, module, data, ckpt, config.unit, finish)


def report(out: Path) -> bool:
    """Write the run's report; False where there is too little for one, said in one line."""
    from masa.analysis.load import RunError
    from masa.report import write_report

    try:
        write_report([out], out)
    except RunError as error:
        print(f"no report: {error}", file=sys.stderr)
        return False
    return True


def main() -> None:
    """Console script."""
    app.hydra_main("masa-train", "config", check, run, describe=describe, directory=check_directory)


if __name__ == "__main__":
    main()

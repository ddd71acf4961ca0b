"""`masa-train`: compose, build, run."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa.cli import app
from masa.cli.recording import check_recording, recording_of
from masa.cli.resume import check_resume_config
from masa.config import RunConfig, load
from masa.errors import ConfigError, require
from masa.plugins import build_plugin
from masa.rollout.samplers import PromptSampler
from masa.tasks.base import Task


def check(cfg: DictConfig) -> RunConfig:
    """Everything that can be refused without heavy work."""
    config = load(cfg)
    from hydra.errors import InstantiationException
    from hydra.utils import get_class, instantiate

    from masa.algorithm.controller import Controller
    from masa.algorithm.task_rewards import TaskRewards
    from masa.engine.settings import check_engine
    from masa.evaluation.benchmarks import check_benchmarks
    from masa.evaluation.gold_answers import GoldAnswersEngine
    from masa.rollout.build import build_task
    from masa.tracking.loggers import check_loggers

    check_recording(cfg, config)
    try:
        task = build_task(cfg.task)
        instantiate(cfg.model).check(task)
        engine = get_class(cfg.engine._target_)
        require(
            not issubclass(engine, GoldAnswersEngine),
            "engine=gold_answers answers the benchmarks of masa-eval: use engine=vllm or engine=hf",
        )
        check_engine(engine, cfg.engine)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigError(" ".join(str(cause).split())) from error
    Controller(config.algorithm, config.seed)
    build_plugin("sampler", config.sampler, PromptSampler)
    check_loggers(cfg.logger or {})
    require_enough_prompts(task, config)
    TaskRewards(config.task.rewards, task.train)
    check_benchmarks(config.benchmark)
    return config


def require_enough_prompts(task: Task, config: RunConfig) -> None:
    """Raise ConfigError where the pool does not fill one rollout."""
    needed = config.trainer.prompts_per_rollout
    if len(task.train) < needed:
        raise ConfigError(
            f"trainer.prompts_per_rollout is {needed}, the task has {len(task.train)} prompts"
        )


def run(cfg: DictConfig) -> None:
    """One training run."""
    config = load(cfg)
    from masa.training.devices import check_devices, keep_freed_memory

    check_devices(config.strategy, config.trainer.accelerator)
    keep_freed_memory(config.trainer.accelerator)
    out = Path(config.output_dir)
    with app.locked(out):
        app.quiet(out / "log.txt")
        train(cfg, config, out)


def train(cfg: DictConfig, config: RunConfig, out: Path) -> None:
    """The run, once its directory is its own."""
    import lightning as L
    from hydra.utils import instantiate
    from tqdm.contrib.logging import logging_redirect_tqdm

    from masa.evaluation.benchmarks import load_benchmarks
    from masa.rollout.build import (
        build_engine,
        build_renderer,
        build_task,
        build_task_rewards,
        longest_sequence,
    )
    from masa.rollout.callback import RolloutCallback
    from masa.rollout.datamodule import MasaDataModule
    from masa.rollout.validation import HeldOut, ValidationCallback
    from masa.tasks.limits import LimitedTask
    from masa.tracking.csv_logger import CsvLogger
    from masa.tracking.files import atomic_replace
    from masa.tracking.loggers import WandbLogger, build_loggers
    from masa.training.checkpoint import (
        CheckpointCallback,
        DirectCheckpointIO,
        find_checkpoint,
        ranked,
        require_rollouts_left,
        require_same_model,
        require_strategy,
        require_version,
        step_of,
    )
    from masa.training.memory import MemoryCallback
    from masa.training.module import MasaModule
    from masa.training.progress import ProgressCallback
    from masa.training.replay import ReplayModule
    from masa.training.sharding import build_strategy
    from masa.training.stopping import EXIT_STOPPED, Stopped, StopSignal

    if "name" in cfg.model and Path(cfg.model.name).expanduser().is_dir():
        # config.yaml is read from other directories as well: to go on, to export
        cfg.model.name = str(Path(cfg.model.name).expanduser().resolve())
    started = time.perf_counter()
    recording = recording_of(cfg)
    require(
        recording is None or recording.run.resolve() != out.resolve(),
        f"engine.run={out} would be overwritten by its own replay: choose another hydra.run.dir",
    )
    ckpt = find_checkpoint(config.ckpt, out)
    if ckpt is not None:
        require_version(ckpt)
        require_strategy(ckpt, config.strategy.name)
        require_rollouts_left(ckpt, config.trainer.max_rollouts)
        check_resume_config(cfg, out / "config.yaml")
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
    task = LimitedTask(task, renderer, algorithm.prompt_limit)
    require_enough_prompts(task, config)
    held_out = [HeldOut("", task.validation, renderer, task.verify)]
    for benchmark in benchmarks:
        its_renderer = build_renderer(benchmark.templates, model, model_path, algorithm, special)
        held_out.append(HeldOut(benchmark.name, benchmark.prompts, its_renderer, benchmark.verify))
    longest_prompt = max(task.longest_prompt, *(part.longest_prompt for part in held_out))
    longest = longest_sequence(longest_prompt, model, model_path, algorithm)

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

    def policy() -> Any:
        built = model.load(model_path, weights=recording is None)
        if ckpt is not None:
            require_same_model(ckpt, built)
        return built

    sampler = build_plugin("sampler", config.sampler, PromptSampler)
    stop = StopSignal()
    rollout = RolloutCallback(
        algorithm,
        settings,
        renderer,
        task.verify,
        build_task_rewards(config, task, renderer),
        config.task.correct_at,
        sampler,
        engine,
        config.seed,
        out,
        config.ranks_per_engine,
        stop,
    )
    available = None if recording is None else recording.has
    validation = ValidationCallback(held_out, rollout, algorithm, settings, available)
    callbacks = [
        MemoryCallback(config.engine),
        stop,
        rollout,
        validation,
        ProgressCallback(settings.max_rollouts, f"{algorithm.name} seed {config.seed}"),
        CheckpointCallback(out / "checkpoints", settings, validation, stop),
    ]
    module_class = MasaModule
    if recording is not None:
        # no policy: nothing to hold in memory, to train or to save
        module_class, callbacks = ReplayModule, callbacks[1:-1]
    module = module_class(policy, algorithm, config.optimizer, settings, config.strategy)
    resume_step = None if ckpt is None else step_of(ckpt)
    nodes = (cfg.logger or {}).values()
    trainer = L.Trainer(
        accelerator=settings.accelerator,
        devices=config.strategy.devices,
        num_nodes=config.strategy.num_nodes,
        strategy=build_strategy(config.strategy),
        # FSDP casts parameters by itself
        precision="32-true" if config.strategy.distributed else settings.precision,  # type: ignore[arg-type]
        max_epochs=1,
        logger=[CsvLogger(out, resume_step), *build_loggers(nodes, out, resume_step)],
        callbacks=callbacks,
        plugins=[DirectCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        default_root_dir=out,
    )
    if trainer.is_global_zero:
        OmegaConf.save(cfg, out / "config.tmp", resolve=True)
        atomic_replace(out / "config.tmp", out / "config.yaml")
        logging.getLogger("masa").info(renderer.describe())
        (out / "data.json").write_text(json.dumps(task.report, indent=2) + "\n")
        print(task.summary())
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    for logger in trainer.loggers:
        logger.log_hyperparams(resolved)
    data = MasaDataModule(
        task.train,
        sampler,
        rollout,
        settings.prompts_per_rollout,
        settings.max_rollouts,
        config.seed,
        config.ranks_per_engine,
    )
    try:
        # a line stands above the bar, not in it
        with logging_redirect_tqdm([logging.getLogger("masa")]):
            trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
        if trainer.is_global_zero and report(out):
            print(f"{out / 'report.md'}  ({time.perf_counter() - started:.0f} s)")
            best = [path for _, path in ranked(out / "checkpoints")][:1]
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_end(sorted((out / "figures").glob("*.png")), best)
    except Stopped:
        if not trainer.is_global_zero:
            # a launcher takes the first failure for the reason, so one rank speaks for all
            raise SystemExit(0) from None
        print(f"stopped after rollout {module.version}: resume with ckpt=auto", file=sys.stderr)
        raise SystemExit(EXIT_STOPPED) from None
    finally:
        if "wandb" in sys.modules:
            # else the next job of a multirun would log into this one's run
            sys.modules["wandb"].finish()


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
    app.hydra_main("masa-train", "config", check, run)


if __name__ == "__main__":
    main()

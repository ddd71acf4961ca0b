"""`masa-train`: compose, build, run."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa import cli
from masa.config import ConfigError, RunConfig, load
from masa.tasks.base import Task


def check(cfg: DictConfig) -> RunConfig:
    """Everything that can be refused without heavy work."""
    config = load(cfg)
    from hydra.errors import InstantiationException
    from hydra.utils import get_class, instantiate

    try:
        task = instantiate(cfg.task)
        instantiate(cfg.model).check(task)
        engine: Any = get_class(cfg.engine._target_)
        engine.check_available()
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigError(" ".join(str(cause).split())) from error
    require_enough_prompts(task, config)
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
    out = Path(config.output_dir)
    cli.quiet(out / "log.txt")
    import lightning as L
    from hydra.utils import instantiate

    from masa.analysis.load import RunError
    from masa.data.datamodule import MasaDataModule
    from masa.data.limits import LimitedTask
    from masa.report import write_report
    from masa.training.build import build_dialogue, build_engine, longest_sequence
    from masa.training.checkpoint import CheckpointCallback, find_checkpoint
    from masa.training.csv_logger import CsvLogger
    from masa.training.module import MasaModule
    from masa.training.progress import ProgressCallback
    from masa.training.rollout import RolloutCallback
    from masa.training.sharding import build_strategy
    from masa.training.validation import ValidationCallback

    started = time.perf_counter()
    ckpt = find_checkpoint(config.ckpt, out)
    if ckpt is not None:
        refuse_another_run(cfg, out / "config.yaml")
    L.seed_everything(config.seed, verbose=False)
    algorithm, settings = config.algorithm, config.trainer
    task = instantiate(cfg.task)
    model = instantiate(cfg.model)
    model_path = model.resolve(task)
    dialogue = build_dialogue(task, model, model_path, algorithm)
    task = LimitedTask(task, dialogue, algorithm.prompt_limit)
    require_enough_prompts(task, config)
    longest = longest_sequence(task, model, model_path, algorithm)

    def engine() -> Any:
        with cli.native_stderr_to(out / "log.txt"):
            return build_engine(cfg.engine, model, model_path, longest, dialogue, algorithm)

    rollout = RolloutCallback(
        algorithm,
        settings,
        dialogue,
        task.verify,
        engine,
        config.seed,
        out,
    )
    module = MasaModule(lambda: model.load(model_path), algorithm, config.optimizer, settings)
    resume_step = None if ckpt is None else int(ckpt.stem.rpartition("-")[2])
    trainer = L.Trainer(
        accelerator=settings.accelerator,
        devices=config.strategy.devices,
        num_nodes=config.strategy.num_nodes,
        strategy=build_strategy(config.strategy),
        precision=settings.precision,  # type: ignore[arg-type]
        max_epochs=1,
        logger=[CsvLogger(out, resume_step), *_loggers(cfg)],
        callbacks=[
            rollout,
            ValidationCallback(task.validation, rollout, algorithm, settings),
            ProgressCallback(settings.max_rollouts, f"{algorithm.name} seed {config.seed}"),
            CheckpointCallback(out / "checkpoints", settings),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        default_root_dir=out,
    )
    if trainer.is_global_zero:
        OmegaConf.save(cfg, out / "config.yaml", resolve=True)
        (out / "data.json").write_text(json.dumps(task.report, indent=2) + "\n")
        print(task.summary())
        logging.getLogger("masa").info(dialogue.describe())
    data = MasaDataModule(
        task.train, rollout, settings.prompts_per_rollout, settings.max_rollouts, config.seed
    )
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    finally:
        if "wandb" in sys.modules:
            # else the next job of a multirun would log into this one's run
            sys.modules["wandb"].finish()
    if trainer.is_global_zero:
        try:
            report = write_report([out], out)
            print(f"{report}  ({time.perf_counter() - started:.0f} s)")
        except RunError as error:
            print(f"no report: {error}", file=sys.stderr)


def refuse_another_run(cfg: DictConfig, saved: Path) -> None:
    """Raise ConfigError where a run would go on under settings that change its numbers."""
    if not saved.exists():
        return
    before = flatten(OmegaConf.load(saved))
    now = flatten(cfg)
    for key in sorted(before.keys() | now.keys()):
        if key.split(".")[0] in ("algorithm", "optimizer", "task", "model", "seed"):
            if before.get(key) != now.get(key):
                raise ConfigError(
                    f"{key} is {now.get(key)}, but {saved.parent} was run with {before.get(key)}: "
                    "repeat its settings to go on, or choose another directory"
                )


def flatten(cfg: Any) -> dict[str, Any]:
    """Resolved values by dotted key."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    flat: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                walk(value, f"{prefix}.{name}" if prefix else str(name))
        else:
            flat[prefix] = node

    walk(plain, "")
    return flat


def _loggers(cfg: DictConfig) -> Sequence[Any]:
    from hydra.utils import instantiate

    return [instantiate(node) for node in (cfg.logger or {}).values()]


def main() -> None:
    """Console script."""
    cli.hydra_main("masa-train", "config", check, run)


if __name__ == "__main__":
    main()

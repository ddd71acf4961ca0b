"""What `masa-train` and `masa-sft` share: the run's directory, its trainer, its start and end."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa.cli import app
from masa.cli.resume import check_resume_config, origin
from masa.config import FitConfig, RunConfig
from masa.errors import require
from masa.evaluation.eval_config import is_run
from masa.export import model_of_run
from masa.ranks import first_rank
from masa.run_config import run_config
from masa.tracking.checkpoints import (
    candidates,
    find_checkpoint,
    require_not_beyond,
    require_strategy,
    require_version,
    say_if_finished,
    step_of,
)


def check_parts(cfg: DictConfig, config: FitConfig, task: Any) -> None:
    """Raise ConfigError for model, engine or loggers that show to be unusable without heavy work.

    Args:
        cfg: the composed config.
        config: its settings.
        task: the task, built from it.
    """
    from hydra.utils import instantiate

    from masa.engine.settings import check_arguments, check_engine
    from masa.plugins import load_class

    if config.uses_engine:
        from masa.evaluation.gold_answers import GoldAnswersEngine

        kind = load_class("engine", cfg.engine)
        require(
            not issubclass(kind, GoldAnswersEngine),
            "engine=gold_answers answers the benchmarks of masa-eval: use engine=vllm or engine=hf",
        )
        check_engine(kind, cfg.engine)
        check_arguments(kind)
        rank = cfg.engine.get("lora_rank")
        trained = OmegaConf.select(cfg, "model.lora.rank")
        require(
            rank is None or rank == trained,
            f"engine.lora_rank is {rank}, but model.lora.rank is {trained}: make them equal, or "
            "set engine.lora_rank=null to merge the adapter",
        )
    model = instantiate(cfg.model)
    if not ("name" in cfg.model and is_run(str(cfg.model.name))):
        model.check(task)
        if config.uses_engine and hasattr(model, "context"):
            _require_room(config, model.context())
    attention = OmegaConf.select(cfg, "model.attn_implementation")
    require(
        "flash" not in str(attention)
        or cfg.model.get("dtype") != "float32"
        or cfg.trainer.precision != "32-true",
        f"model.attn_implementation={attention} computes in 16 bits: set "
        "trainer.precision=bf16-mixed or model.dtype=bfloat16, or use sdpa",
    )
    if cfg.logger:
        # Lightning alone takes as long to import as all that stands above
        from masa.tracking.loggers import check_loggers

        check_loggers(cfg.logger)


def _require_room(config: FitConfig, context: int | None) -> None:
    """Raise ConfigError where responses alone fill the model's context."""
    for name, limit in config.response_limits.items():
        require(
            context is None or limit < context,
            f"{name} is {limit}, but the model's context holds {context} tokens, prompts included: "
            "lower it",
        )


def in_its_directory(config: FitConfig, work: Callable[[Path], None]) -> None:
    """Do the work of a run, once its devices are there and its directory is its own."""
    from masa.training.devices import check_devices, keep_freed_memory

    check_devices(config.strategy, config.trainer.accelerator, config.uses_engine)
    keep_freed_memory(config.trainer.accelerator)
    out = Path(config.output_dir)
    with app.locked(out):
        app.quiet(out / "log.txt")
        work(out)


def check_directory(cfg: DictConfig, config: FitConfig, out: Path) -> None:
    """Raise ConfigError for a run that cannot begin, or go on, in `out`, as far as shows at once.

    Args:
        cfg: the composed config.
        config: its settings.
        out: the run's directory.
    """
    if os.path.exists(out / app.LOCK):
        with app.locked(out):
            pass
    for ckpt in candidates(config.ckpt, out)[:1]:
        # digests take long, so that the first stands for the one that will be found; which weights
        # `model.name` means shows once they are made
        _require_fit(cfg, config, out, ckpt, but=["model.name"])


def _require_fit(
    cfg: DictConfig, config: FitConfig, out: Path, ckpt: Path, but: Sequence[str] = ()
) -> None:
    """Raise ConfigError where a run cannot go on from a checkpoint under its settings, all `but`
    some."""
    require_version(ckpt)
    require_strategy(ckpt, config.strategy.name)
    if isinstance(config, RunConfig):
        require_not_beyond(ckpt, config.trainer.max_rollouts)
    # a checkpoint of another run brings its optimizer, whatever the settings say
    for run in {out, ckpt.parent.parent}:
        check_resume_config(cfg, run, but=but)


def settle_model(cfg: DictConfig, out: Path) -> None:
    """Have `model.name` name a folder with weights by its full path: of a run, its last checkpoint,
    or the one that the run in `out` began with.

    config.yaml is read from other directories as well: to go on, to export.
    """
    if "name" not in cfg.model or not Path(cfg.model.name).expanduser().is_dir():
        return
    folder = Path(cfg.model.name).expanduser().resolve()
    if is_run(str(folder)):
        own = cfg.ckpt in (None, "auto", "last", "best")
        begun = out if own else Path(cfg.ckpt).expanduser().parent.parent
        before = run_config(begun) if is_run(str(begun)) else OmegaConf.create()
        name = OmegaConf.select(before, "model.name")
        goes_on = name is not None and origin(name) == str(folder) and Path(name).is_dir()
        folder = Path(name) if goes_on else model_of_run(folder)
        if first_rank():
            print(f"model={cfg.model.name}: {folder.name.rpartition('-')[0]}", flush=True)
    cfg.model.name = str(folder)


def plan_model(cfg: DictConfig) -> None:
    """Have `model.name` name a folder or a hub id with the shapes of the model; of a run, what it
    began with."""
    if "name" in cfg.model and is_run(str(cfg.model.name)):
        folder = Path(cfg.model.name).expanduser()
        begun = run_config(folder).model
        cfg.model.name = begun.name if "name" in begun else str(model_of_run(folder))


def checkpoint_to_resume(cfg: DictConfig, config: FitConfig, out: Path) -> Path | None:
    """The checkpoint to go on from; None for a new run.

    Raises:
        ConfigError: there is none, or none that these settings can go on from.
    """
    ckpt = find_checkpoint(config.ckpt, out)
    if ckpt is not None:
        _require_fit(cfg, config, out, ckpt)
        if isinstance(config, RunConfig):
            say_if_finished(ckpt, config.trainer.max_rollouts)
    return ckpt


def policy_builder(
    model: Any, model_path: Path, ckpt: Path | None, weights: bool = True
) -> Callable[[Any], Any]:
    """Builds the policy, or only its shapes, and refuses a checkpoint that is of another model."""
    from masa.training.checkpoint import require_same_model

    def policy(shard: Any) -> Any:
        built = model.load(model_path, weights, shard)
        if ckpt is not None:
            require_same_model(ckpt, built)
        return built

    return policy


def build_trainer(
    cfg: DictConfig, config: FitConfig, out: Path, ckpt: Path | None, callbacks: Sequence[Any]
) -> Any:
    """Lightning's Trainer on the configured devices, with the configured loggers."""
    import lightning as L

    from masa.tracking.csv_logger import CsvLogger
    from masa.tracking.loggers import build_loggers
    from masa.training.checkpoint import DirectCheckpointIO
    from masa.training.strategy import build_strategy

    resume_step = None if ckpt is None else step_of(ckpt)
    nodes = (cfg.logger or {}).values()
    settings = config.trainer
    return L.Trainer(
        accelerator=settings.accelerator,
        devices=config.strategy.devices,
        num_nodes=config.strategy.num_nodes,
        strategy=build_strategy(config.strategy),
        # FSDP casts parameters by itself
        precision="32-true" if config.strategy.distributed else settings.precision,  # type: ignore[arg-type]
        max_epochs=1,
        logger=[CsvLogger(out, resume_step), *build_loggers(nodes, out, resume_step)],
        callbacks=list(callbacks),
        plugins=[DirectCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        default_root_dir=out,
    )


def write_config(resolved: dict[str, Any], out: Path) -> None:
    """Write config.yaml, which others read and resolve."""
    from masa.plugins import escaped
    from masa.tracking.files import atomic_write

    with atomic_write(out / "config.yaml") as partial:
        OmegaConf.save(OmegaConf.create(escaped(resolved)), partial)


def fit(
    cfg: DictConfig,
    out: Path,
    trainer: Any,
    module: Any,
    data: Any,
    ckpt: Path | None,
    unit: str,
    finish: Callable[[], None],
) -> None:
    """Write config.yaml, train, and finish; leave with `EXIT_STOPPED` where a signal stops it.

    Args:
        cfg: the composed config.
        out: the run's directory.
        trainer, module, data: of Lightning.
        ckpt: checkpoint to go on from.
        unit: what a step is called.
        finish: called on every rank after the last step.
    """
    from tqdm.contrib.logging import logging_redirect_tqdm

    from masa.training.stopping import EXIT_STOPPED, Stopped

    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    if trainer.is_global_zero:
        write_config(resolved, out)
    for logger in trainer.loggers:
        logger.log_hyperparams(resolved)
    try:
        # a line stands above the bar, not in it
        with logging_redirect_tqdm([logging.getLogger("masa")]):
            trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
        finish()
    except Exception:
        # ranks that Lightning has started would wait for this one, and hold their devices
        if hasattr(trainer.strategy.launcher, "kill"):
            trainer.strategy.launcher.kill(signal.SIGKILL)
        raise
    except Stopped:
        if not trainer.is_global_zero:
            # a launcher takes the first failure for the reason, so one rank speaks for all
            raise SystemExit(0) from None
        print(f"stopped after {unit} {module.version}: resume with ckpt=auto", file=sys.stderr)
        raise SystemExit(EXIT_STOPPED) from None
    finally:
        if "wandb" in sys.modules:
            # else the next job of a multirun would log into this one's run
            sys.modules["wandb"].finish()

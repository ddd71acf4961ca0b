"""`masa-sft`: fine-tuning on demonstrations, the phase before reinforcement learning."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa import fitting
from masa.cli import app
from masa.cli.recording import plays_recording
from masa.cli.resume import flatten
from masa.config import SftConfig, load_as
from masa.errors import require
from masa.export import check_model_name
from masa.layout_settings import SECONDS
from masa.plugins import escaped, refusing
from masa.tasks.demonstrations import (
    Demonstrated,
    accepted,
    check_mixed_predictions,
    require_demonstrations,
)


def check(cfg: DictConfig) -> SftConfig:
    """Everything that can be refused without heavy work."""
    config = _load(cfg)

    from masa.tasks.build import build_task
    from masa.tasks.limits import check_task

    with refusing():
        task = build_task(cfg.task)
        if config.algorithm.meta.predict_mixed or config.sft.mixed_predictions:
            check_mixed_predictions(task)
        check_model_name(cfg.model)
        if config.sft.source == "task":
            _right(*_wanted(cfg, config), config.task.correct_at)
        check_task(task)
        # they import PyTorch and transformers, which takes seconds
        require(
            not config.uses_engine or not plays_recording(cfg),
            "engine=recorded plays a run of masa-train: use engine=vllm or engine=hf",
        )
        fitting.check_parts(cfg, config, task)
    return config


def check_directory(cfg: DictConfig, out: Path) -> None:
    """Raise ConfigError where the run cannot begin, or go on, in `out`."""
    fitting.check_directory(cfg, _load(cfg), out)


def run(cfg: DictConfig) -> None:
    """One run."""
    config = _load(cfg)
    fitting.in_its_directory(config, lambda out: fine_tune(cfg, config, out))


def _load(cfg: DictConfig) -> SftConfig:
    """The settings; a model that `masa-sft` makes the first weights of begins without them."""
    if cfg.model.get("warmstart") is not None:
        OmegaConf.update(cfg, "model.warmstart", None)
    return load_as(SftConfig, cfg)


def fine_tune(cfg: DictConfig, config: SftConfig, out: Path) -> None:
    """The run, once its directory is its own."""
    import lightning as L
    from hydra.utils import instantiate

    from masa.export import model_of_run
    from masa.rollout.build import build_renderer, longest_sequence
    from masa.rollout.demonstrations import (
        DemonstrationModule,
        HeldOutLoss,
        build_sets,
        cross_entropy,
    )
    from masa.tasks.build import build_task
    from masa.tasks.limits import LimitedTask
    from masa.tracking.environment import environment, record
    from masa.training.checkpoint import CheckpointCallback
    from masa.training.loading import require_context
    from masa.training.memory import MemoryCallback
    from masa.training.module import MasaModule
    from masa.training.progress import ProgressCallback
    from masa.training.stopping import StopSignal

    fitting.settle_model(cfg, out)
    ckpt = fitting.checkpoint_to_resume(cfg, config, out)
    L.seed_everything(config.seed, verbose=False)
    task, model = build_task(cfg.task), instantiate(cfg.model)
    model_path = model.resolve(task)
    renderer = build_renderer(
        task.templates, model, model_path, config.algorithm, config.allow_special_tokens
    )
    demonstrated = _demonstrated(cfg, config, out, task, model, model_path, renderer)
    sets = build_sets(demonstrated, task, renderer, config.algorithm, config.sft, config.seed)
    dropped = {**task.report.get("dropped", {}), **sets.report["dropped"]}
    sets = replace(sets, report={**sets.report, "dropped": dropped})
    require_context(
        model_path,
        model.trust_remote_code,
        sets.longest,
        "the longest demonstration and its prompt",
        "algorithm.prompt_limit or algorithm.response_limit",
    )
    if config.sft.table:
        # its limits are refused before the training
        limited = LimitedTask(task, renderer, config.algorithm.prompt_limit)
        longest = longest_sequence(
            *(limited.longest_prompt, model, model_path, config.algorithm, config.response_limits)
        )
    algorithm = cross_entropy(config.algorithm)
    data = DemonstrationModule(sets.train, config.sft, renderer.pad_token_id)
    policy = fitting.policy_builder(model, model_path, ckpt)
    module = MasaModule(policy, algorithm, config.optimizer, config.trainer, config.strategy)
    stop = StopSignal()
    held_out = HeldOutLoss(sets.held_out, data, config.trainer)
    label = f"{config.name} seed {config.seed}"
    callbacks = [
        MemoryCallback(None),
        stop,
        held_out,
        ProgressCallback(config.trainer.max_rollouts, label, config.unit),
        CheckpointCallback(out / "checkpoints", config.trainer, held_out, stop),
    ]
    trainer = fitting.build_trainer(cfg, config, out, ckpt, callbacks)
    if trainer.is_global_zero:
        logging.getLogger("masa").info(renderer.describe())
        (out / "data.json").write_text(json.dumps(sets.report, indent=2) + "\n")
        record(out, environment(None), resumed=ckpt is not None)
        print(sets.summary())

    def finish() -> None:
        if not trainer.is_global_zero:
            return
        weights = model_of_run(out)
        if config.sft.table:
            engine = _engine(cfg, config, model, weights, renderer, longest)
            with closing(engine):
                print(held_out_table(config, limited, renderer, engine), end="")
        print(f"fine-tuned: {weights}; go on with masa-train model={out}, or masa-eval model={out}")

    fitting.fit(cfg, out, trainer, module, data, ckpt, config.unit, finish)


def _wanted(cfg: DictConfig, config: SftConfig) -> tuple[str, int, int]:
    """The task as JSON, the number of solutions, and their seed."""
    plain = OmegaConf.to_container(cfg.task, resolve=True)
    return json.dumps(plain), _count(config), config.seed


def _count(config: SftConfig) -> int:
    sft = config.sft
    return (sft.limit or sft.steps * sft.batch_size) + sft.held_out


# the check of a command line and its run need the same solutions
@lru_cache(maxsize=2)
def _of_task(task: str, count: int, seed: int) -> Demonstrated:
    from masa.tasks.build import build_task

    built = build_task(OmegaConf.create(escaped(json.loads(task))))
    return require_demonstrations(built).demonstrations(count, seed)


@lru_cache(maxsize=2)
def _right(task: str, count: int, seed: int, correct_at: float) -> Demonstrated:
    from masa.tasks.build import build_task

    built = build_task(OmegaConf.create(escaped(json.loads(task))))
    return accepted(_of_task(task, count, seed), built, correct_at)


def _file(cfg: DictConfig, config: SftConfig) -> Path:
    """Where the run keeps its solutions, by all that they depend on."""
    sft = config.sft
    facts: list[Any] = [sft.source, _count(config), config.seed]
    groups = ["task"]
    if sft.source == "self":
        facts += [sft.samples, sft.keep, cfg.engine._target_, cfg.engine.get("dtype")]
        facts.append(config.allow_special_tokens)
        groups += ["algorithm", "model"]
    for key, value in sorted(flatten(cfg).items()):
        # a run may go on under other time limits
        if key.split(".")[0] in groups and key not in SECONDS:
            facts.append((key, value))
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return Path(config.output_dir) / f"solutions-{digest}.json"


def _demonstrated(
    cfg: DictConfig,
    config: SftConfig,
    out: Path,
    task: Any,
    model: Any,
    model_path: Path,
    renderer: Any,
) -> Any:
    """The solutions to learn from, sampled or verified by one rank, for all."""
    from masa.rollout.build import longest_sequence
    from masa.rollout.demonstrations import kept_once, self_sampled
    from masa.tasks.limits import LimitedTask
    from masa.training.random_state import random_state, set_random_state

    file, correct_at = _file(cfg, config), config.task.correct_at
    if config.sft.source == "task":
        wanted = _wanted(cfg, config)
        prompts = [prompt for prompt, _ in _of_task(*wanted).solutions]
        return kept_once(file, prompts, lambda: _right(*wanted, correct_at))
    algorithm = config.algorithm
    limited = LimitedTask(task, renderer, algorithm.prompt_limit)

    def engine() -> Any:
        solutions = {"algorithm.response_limit": algorithm.response_limit}
        longest = longest_sequence(limited.longest_prompt, model, model_path, algorithm, solutions)
        return _engine(cfg, config, model, model_path, renderer, longest)

    def sampled() -> Demonstrated:
        count, seed = _count(config), config.seed
        return self_sampled(
            limited, renderer, engine, algorithm, config.sft, count, seed, correct_at
        )

    # an engine seeds the generators that an adapter's first weights are drawn from
    state = random_state()
    demonstrated = kept_once(file, limited.train, sampled)
    set_random_state(state)
    return demonstrated


def _engine(
    cfg: DictConfig, config: SftConfig, model: Any, path: Path, renderer: Any, longest: int
) -> Any:
    """An engine with the weights of a folder."""
    from masa.rollout.build import build_engine
    from masa.training.loading import load_policy

    with app.native_stderr_to(Path(config.output_dir) / "log.txt"):
        engine = build_engine(
            *(cfg.engine, model, path, longest, renderer.eos_token_ids),
            config.algorithm.temperature,
        )
    policy = load_policy(path, trust_remote_code=model.trust_remote_code)
    engine.load_weights(policy.named_parameters(), 0)
    return engine


def held_out_table(config: SftConfig, limited: Any, renderer: Any, engine: Any) -> str:
    """Accuracy, length and predictions per level on held-out prompts, as text."""
    from masa.algorithm.controller import Controller
    from masa.algorithm.step import RolloutContext, collect
    from masa.rollout.validation import validation_config
    from masa.statistics import clustered_wilson
    from masa.tracking.metrics import meta_metrics, rollout_metrics

    algorithm = validation_config(config.algorithm, config.trainer)
    context = RolloutContext(
        renderer=renderer,
        generate=engine.generate,
        verify=limited.verify,
        controller=Controller(algorithm, config.seed),
        config=algorithm,
        step=0,
        seed=config.seed,
        correct_at=config.task.correct_at,
    )
    groups = collect(limited.validation, context)
    samples = config.trainer.val_samples
    lines = [f"held-out prompts, {samples} samples each, T = {algorithm.temperature:g}"]
    lines.append("level  prompts  accuracy  95 % interval  mixed  tokens  predicted  parsed  corr")
    levels = sorted({group.prompt.level for group in groups})
    for level in [*levels, None]:
        of_level = [g for g in groups if level is None or g.prompt.level == level]
        solved = rollout_metrics(of_level, algorithm.meta.response_limit)
        meta = meta_metrics(of_level)
        right = clustered_wilson(
            [sum(g.correct) for g in of_level], [len(g.correct) for g in of_level]
        )
        lines.append(
            f"{'all' if level is None else level:>5}  {len(of_level):7d}"
            f"  {right.value:8.3f}  {right.low:6.3f}, {right.high:5.3f}"
            f"  {1 - solved['frac_reward_zero_std']:5.2f}"
            f"  {solved['completions/mean_length']:6.1f}  {meta['meta/pass_rate_predicted']:9.3f}"
            f"  {meta['meta/parse_rate']:6.2f}  {meta['meta/pass_rate_corr']:4.2f}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Console script."""
    app.hydra_main("masa-sft", "sft", check, run, directory=check_directory)


if __name__ == "__main__":
    main()

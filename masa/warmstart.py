"""`masa-warmstart`: build the built-in task's initial policy and print its held-out scores."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from masa.cli import app
from masa.config import RunConfig, load
from masa.tracking.files import atomic_replace
from masa.train import check

SAMPLES = 8
"""Solutions and predictions per held-out problem."""


def run(cfg: DictConfig) -> None:
    """Build the model where it is not in the cache, and print its held-out table."""
    config = load(cfg)
    app.quiet(Path(config.output_dir) / "log.txt")
    from hydra.utils import instantiate

    from masa.rollout.build import build_task

    task = build_task(cfg.task)
    model = instantiate(cfg.model)
    path = model.resolve(task)
    print(f"warm-started model: {path}")
    table = path / table_name(config)
    if not table.exists():
        partial = table.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(held_out_table(cfg, config, task, model, path))
        atomic_replace(partial, table)
    print(table.read_text())


def table_name(config: RunConfig) -> str:
    """File name of the held-out table, beside the model: a hash over the settings of the table
    that are none of the model's."""
    algorithm = config.algorithm
    facts = {
        "engine": config.engine,
        "task": config.task,
        "model": config.model,
        "limits": (algorithm.prompt_limit, algorithm.response_limit),
        "meta": (algorithm.meta.min_length, algorithm.meta.response_limit),
        "temperature": algorithm.temperature,
        "seed": config.seed,
        "samples": SAMPLES,
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return f"held_out-{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"


def held_out_table(cfg: DictConfig, config: Any, task: Any, model: Any, path: Path) -> str:
    """Accuracy, length and predictions per level on held-out problems, as text."""
    from masa.algorithm.controller import Controller
    from masa.algorithm.step import RolloutContext, collect
    from masa.rollout.build import build_engine, build_renderer, longest_sequence
    from masa.rollout.validation import validation_config
    from masa.tasks.limits import LimitedTask
    from masa.tracking.metrics import meta_metrics, rollout_metrics
    from masa.training.models import load_policy

    trainer = replace(config.trainer, val_samples=SAMPLES, val_meta_samples=SAMPLES)
    algorithm = validation_config(config.algorithm, trainer)
    renderer = build_renderer(task.templates, model, path, algorithm)
    task = LimitedTask(task, renderer, algorithm.prompt_limit)
    longest = longest_sequence(task.longest_prompt, model, path, algorithm)
    with app.native_stderr_to(Path(config.output_dir) / "log.txt"):
        engine = build_engine(
            cfg.engine, model, path, longest, renderer.eos_token_ids, algorithm.temperature
        )
    engine.load_weights(load_policy(path).named_parameters(), 0)
    context = RolloutContext(
        renderer=renderer,
        generate=engine.generate,
        verify=task.verify,
        controller=Controller(algorithm, config.seed),
        config=algorithm,
        seed=config.seed,
    )
    groups = collect(task.validation, 0, context)
    engine.close()
    lines = [f"held-out problems, {SAMPLES} samples each, T = {algorithm.temperature:g}"]
    lines.append("level  problems  accuracy  mixed  tokens  predicted  parsed  corr")
    levels = sorted({group.prompt.level for group in groups})
    for level in [*levels, None]:
        of_level = [g for g in groups if level is None or g.prompt.level == level]
        solved = rollout_metrics(of_level, algorithm.meta.response_limit)
        meta = meta_metrics(of_level)
        lines.append(
            f"{'all' if level is None else level:>5}  {len(of_level):8d}"
            f"  {solved['reward']:8.3f}  {1 - solved['frac_reward_zero_std']:5.2f}"
            f"  {solved['completions/mean_length']:6.1f}  {meta['meta/pass_rate_predicted']:9.3f}"
            f"  {meta['meta/parse_rate']:6.2f}  {meta['meta/pass_rate_corr']:4.2f}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Console script."""
    app.hydra_main("masa-warmstart", "config", check, run)


if __name__ == "__main__":
    main()

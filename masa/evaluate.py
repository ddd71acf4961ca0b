"""`masa-eval`: sample benchmarks, judge, report; or compare two evaluations."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa.cli import app
from masa.cli.arguments import path_arguments, quoted_path
from masa.cli.config_store import conf_dir
from masa.engine.settings import check_sampling_engine
from masa.errors import require
from masa.evaluation.eval_config import EvaluationConfig, file_name, is_run, load
from masa.plugins import built, refusing


def arguments(argv: Sequence[str]) -> list[str]:
    """The command line in the syntax of Hydra.

    `benchmark=a,b` means both, which to Hydra is a sweep; `model` may be a folder or a hub id as
    well as an option of its group.
    """
    adapted = []
    compared: list[str] = []
    for argument in argv:
        key, _, value = argument.partition("=")
        if key == "benchmark" and "," in value and not value.startswith("["):
            argument = f"benchmark=[{value}]"
        elif key == "solve":
            # each option of the group under a key of its own
            adapted += [f"+solve@solve.{name}={name}" for name in value.strip("[]").split(",")]
            continue
        elif key == "model" and not os.path.isfile(conf_dir() / "model" / f"{value}.yaml"):
            argument = f"model.name={value}"
        elif key == "compare":
            listed = re.fullmatch(r"\[(.*)\]", value, re.DOTALL)
            compared = _folders(listed[1] if listed and not os.path.exists(value) else value)
            argument = f"compare=[{','.join(map(quoted_path, compared))}]"
        adapted.append(argument)
    if compared and not any(re.match(r"\+*(hydra\.run\.dir|output_dir)=", arg) for arg in argv):
        # none of its settings would tell one comparison from another
        adapted.append(f"hydra.run.dir=outputs/eval/compared/{_comparison(compared)}")
    return path_arguments(adapted)


def _comparison(folders: Sequence[str]) -> str:
    """The folders that are compared, as the name of a folder."""
    paths = "\n".join(map(os.path.abspath, folders))
    digest = hashlib.sha256(paths.encode(errors="replace")).hexdigest()[:6]
    names = (re.sub(r"[^\x20-\x7e]", "_", file_name(folder))[-60:] for folder in folders)
    return f"{'-and-'.join(names)}-{digest}"


def _folders(listed: str) -> list[str]:
    """The folders of a list; a comma is part of a name where that gives two existing folders."""
    parts = listed.split(",")
    for i in range(1, len(parts)):
        pair = [",".join(parts[:i]).strip(), ",".join(parts[i:]).strip()]
        if all(map(os.path.isdir, pair)):
            return pair
    return [part.strip() for part in parts]


def check(cfg: DictConfig) -> EvaluationConfig:
    """Raise ConfigError for errors that show without loading models; returns the settings."""
    from hydra.utils import instantiate

    from masa.evaluation.store import Store
    from masa.export import check_model_name

    config = load(cfg)
    for directory in config.compare:
        Store(Path(directory)).settings()
    if config.compare:
        return config
    name = cfg.model.name
    with refusing():
        if name is not None:
            check_model_name(cfg.model)
        else:
            require(
                _needs_no_model(cfg),
                "name the model: model=FOLDER, a run of masa-train or a hub id",
            )
    from masa.evaluation.benchmarks import check_benchmarks

    check_benchmarks(config.benchmark)
    if config.solve:
        from masa.evaluation.policy_scores import policies_of

        policies_of(config)
    check_sampling_engine(cfg.engine)
    if name is not None and not is_run(name):
        with refusing():
            instantiate(cfg.model).check(None)
    return config


def run(cfg: DictConfig) -> None:
    """One evaluation."""
    config = load(cfg)
    out = Path(config.output_dir)
    with app.locked(out):
        if config.compare:
            _compare(config, out)
            return
        app.quiet(out / "log.txt")
        evaluate(cfg, config, out)


def evaluate(cfg: DictConfig, config: EvaluationConfig, out: Path) -> None:
    """Sample and judge what `out` lacks, and write results.json and results.md there."""
    settings = _settings(cfg, config)
    if cfg.model.name is not None and is_run(cfg.model.name):
        from masa.export import model_of_run

        folder = model_of_run(Path(cfg.model.name).expanduser())
        # with its digest: of a run that was made anew other samples are wanted
        settings["checkpoint"] = folder.name
        print(
            f"{cfg.model.name}: {folder.name.rpartition('-')[0]}; max_tokens={config.max_tokens} "
            f"meta_max_tokens={config.meta_max_tokens} min_length={config.min_length}"
        )
        cfg.model.name = str(folder)
    from hydra.utils import instantiate

    from masa.evaluation.benchmarks import load_benchmarks
    from masa.evaluation.evaluated_model import evaluated_model
    from masa.evaluation.gold_answers import GoldAnswersEngine
    from masa.evaluation.policy_scores import check_votes
    from masa.evaluation.results import summarise_all, write_results
    from masa.evaluation.sampling import Sampler, sample_all
    from masa.evaluation.store import WEIGHTS, Store
    from masa.tracking.environment import environment

    benchmarks = load_benchmarks(
        config.benchmark, built(cfg.templates), config.limit, config.allow_unsafe_execution
    )
    if config.solve:
        check_votes(benchmarks)
    evaluated = evaluated_model(None if cfg.model.name is None else instantiate(cfg.model))
    if cfg.model.name is not None and "checkpoint" not in settings:
        settings[WEIGHTS] = evaluated.weights()
    store = Store(out)
    store.check_settings(settings)
    samplers = [
        Sampler(benchmark, evaluated.renderer(benchmark.templates, config), config, store)
        for benchmark in benchmarks
    ]

    def engine(longest: int) -> Any:
        if _needs_no_model(cfg):
            return GoldAnswersEngine(samplers, cfg.engine.answers)
        with app.native_stderr_to(out / "log.txt"):
            return evaluated.engine(cfg.engine, longest, config.temperature)

    sample_all(samplers, engine)
    scores = summarise_all(benchmarks, store, config)
    print(write_results(out, scores, settings, environment(cfg.engine)), end="")
    print(f"\n{out / 'results.json'}")


def _compare(config: EvaluationConfig, out: Path) -> None:
    from masa.evaluation.compare import compare
    from masa.evaluation.results import without_nan
    from masa.evaluation.store import write_json, write_text

    first, second = map(Path, config.compare)
    numbers, text = compare(first, second, tuple(config.benchmark))
    write_json(out / "comparison.json", without_nan({"compare": config.compare, **numbers}))
    write_text(out / "comparison.md", text)
    print(text, end="")


def _needs_no_model(cfg: DictConfig) -> bool:
    return str(cfg.engine._target_).endswith(".GoldAnswersEngine")


def _settings(cfg: DictConfig, config: EvaluationConfig) -> dict[str, Any]:
    """The settings that the samples depend on, without the questions."""
    model = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(model, dict)
    # left out where false, as older samples do not have them
    added: dict[str, Any] = {}
    if config.allow_special_tokens:
        added["allow_special_tokens"] = True
    if config.predict_mixed:
        added["group_size"] = config.group_size
    if _needs_no_model(cfg):
        added["answers"] = cfg.engine.answers
    return added | {
        "model": model["name"] or f"{cfg.engine.answers} answers",
        "revision": model.get("revision"),
        "engine": cfg.engine._target_,
        "dtype": cfg.engine.get("dtype"),
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "seed": config.seed,
        "allow_unsafe_execution": config.allow_unsafe_execution,
        "min_length": config.min_length,
        "meta_max_tokens": config.meta_max_tokens,
        "meta_template": cfg.templates.get("meta_mixed" if config.predict_mixed else "meta"),
    }


def main() -> None:
    """Console script."""
    app.hydra_main("masa-eval", "evaluate", check, run, arguments)


if __name__ == "__main__":
    main()

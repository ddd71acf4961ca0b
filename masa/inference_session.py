"""What `masa-predict` and `masa-solve` share: the model, its prompts, and saved samples."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from masa.cli import app
from masa.cli.arguments import make_directory
from masa.engine.settings import check_sampling_engine
from masa.errors import require
from masa.evaluation.eval_config import is_run
from masa.evaluation.saved_samples import SavedSamples
from masa.evaluation.store import WEIGHTS, Store
from masa.export import check_model_name
from masa.inference.answers import Same
from masa.inference.inference_config import InferenceConfig
from masa.inference.problems import STDIN, read_problems, standard_input
from masa.markdown import in_one_line
from masa.plugins import built, load_class, refusing
from masa.run_config import run_config
from masa.tasks.base import same_of
from masa.tasks.hub import VERIFIERS, HubTask
from masa.tasks.templates import Templates
from masa.tracking.files import REPEAT, atomic_write
from masa.types import Engine
from masa.verifiers import gym_answers

SAMPLING = (
    *("temperature", "max_tokens", "meta_max_tokens", "min_length", "seed"),
    *("predict_mixed", "group_size", "allow_special_tokens"),
)
"""Settings that the samples depend on."""
ENDINGS = (".jsonl", ".csv", ".parquet")


def check_inference(cfg: DictConfig, config: InferenceConfig) -> None:
    """Raise ConfigError for errors that show without loading models."""
    require(config.problems is not None, "name the problems: problems=FILE, a text, or - for stdin")
    read_problems(str(config.problems), config.column)
    if config.out not in (None, STDIN):
        out = Path(str(config.out)).expanduser()
        require(out.suffix in ENDINGS, f"out={config.out}: it must end in {', '.join(ENDINGS)}")
        require(not out.is_dir(), f"out={config.out} is a folder: name a file in it")
        source = str(config.problems)
        require(
            not (out.exists() and os.path.isfile(source) and os.path.samefile(out, source)),
            f"out={config.out} would overwrite the problems: name another file",
        )
        make_directory(out.parent, "out")
    name = cfg.model.name
    require(name is not None, "name the model: model=FOLDER, a run of masa-train or a hub id")
    with refusing():
        check_model_name(cfg.model)
    from masa.evaluation.gold_answers import GoldAnswersEngine

    check_sampling_engine(cfg.engine)
    require(
        load_class("engine", cfg.engine) is not GoldAnswersEngine,
        "engine=gold_answers answers the benchmarks of masa-eval: use engine=vllm or engine=hf",
    )
    if not is_run(name):
        with refusing():
            instantiate(cfg.model).check(None)


@dataclass(frozen=True)
class Answering:
    """How a model is asked, and what its answers are."""

    templates: Templates
    same: Same
    """Raises ConfigError, whatever the responses, where the task cannot tell."""
    answer_in: Callable[[str], str | None]
    """The answer in a response, in the form in which `same` compares it; None without one."""


def answering(cfg: DictConfig, verifier: str) -> Answering:
    """Of a run as its task asks and judges, of another model as the settings say."""
    if not is_run(cfg.model.name):
        known = VERIFIERS[verifier]
        return Answering(built(cfg.templates), known.same, known.answer_in)
    from masa.tasks.build import build_task

    task = build_task(run_config(Path(cfg.model.name)).task)
    own = VERIFIERS.get(task.config.verifier) if isinstance(task, HubTask) else None
    return Answering(
        task.templates,
        lambda a, b: same_of(task)(a, b),
        own.answer_in if own else gym_answers.extract,
    )


@contextmanager
def session(
    cfg: DictConfig,
    config: InferenceConfig,
    templates: Templates,
    limits: Mapping[str, int],
    settings: dict[str, Any],
) -> Iterator[SavedSamples]:
    """The model with its saved samples, and the engine freed at the end.

    Args:
        cfg: names model and engine.
        config: how is sampled.
        templates: of the prompts.
        limits: largest completion (tokens) of each kind that will be wanted, solution or meta.
        settings: that the samples depend on beside these.

    Raises:
        ConfigError: the directory has samples of other settings or problems.
    """
    from masa.evaluation.evaluated_model import evaluated_model

    directory = Path(config.output_dir)
    prompts = read_problems(str(config.problems), config.column)
    settings = settings | {
        "model": cfg.model.name,
        "engine": cfg.engine._target_,
        "dtype": cfg.engine.get("dtype"),
        "templates": hashlib.sha256(repr(templates).encode()).hexdigest()[:16],
        "revision": cfg.model.get("revision"),
        **{name: getattr(config, name) for name in SAMPLING},
    }
    node = cfg.model.copy()
    if is_run(node.name):
        from masa.export import model_of_run

        folder = model_of_run(Path(node.name).expanduser())
        settings["checkpoint"] = folder.name
        node.name = str(folder)
    evaluated = evaluated_model(instantiate(node))
    if "checkpoint" not in settings:
        settings[WEIGHTS] = evaluated.weights()
    store = Store(directory)
    store.check_settings(settings)
    renderer = evaluated.renderer(templates, config)

    def build(longest: int) -> Engine:
        with app.native_stderr_to(directory / "log.txt"):
            return evaluated.engine(cfg.engine, longest, config.temperature)

    samples = SavedSamples(
        prompts,
        renderer,
        build,
        store,
        limits,
        config.seed,
        config.batch,
        label=in_one_line(str(cfg.model.name).rstrip("/").rpartition("/")[2], 24),
    )
    with closing(samples):
        yield samples


def run_inference(
    config: InferenceConfig,
    work: Callable[[], pd.DataFrame],
    as_text: Callable[[pd.DataFrame], str],
) -> None:
    """Do the work of a command in its directory, and put the results where `out` wants them; as
    text where it is null."""
    directory = Path(config.output_dir)
    with app.locked(directory), app.results_alone_on_stdout():
        app.quiet(directory / "log.txt")
        table = work()
    if config.out is None:
        print(as_text(table))
    elif config.out == STDIN:
        sys.stdout.write(_json_lines(table))
    else:
        path = Path(config.out).expanduser()
        with atomic_write(path, REPEAT) as partial:
            if path.suffix == ".parquet":
                table.to_parquet(partial, index=False)
            elif path.suffix == ".csv":
                table.to_csv(partial, index=False)
            else:
                partial.write_text(_json_lines(table), encoding="utf-8")
        print(path, file=sys.stderr)


def _json_lines(table: pd.DataFrame) -> str:
    rows = (
        {name: None if _missing(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def problems_name(problems: str | None) -> str:
    """Problems as a part of a directory's name: that of the file and a digest of where it is, or a
    digest of the text."""
    if problems is None:
        return "none"
    if problems != STDIN and os.path.isfile(problems):
        return f"{Path(problems).stem}-{_digest(os.path.realpath(problems))}"
    return f"text-{_digest(standard_input() if problems == STDIN else problems)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]


def policy_name(node: Any) -> str:
    """A policy and its settings that samples depend on, as a part of a directory's name."""
    own = {key: value for key, value in node.items() if key != "abstain"}
    name = str(own["_target_"]).rpartition(".")[2].removesuffix("Policy").lower()
    digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()
    return f"{name}-{digest[:6]}"


# used in conf/predict.yaml and conf/solve.yaml
OmegaConf.register_new_resolver("problems_name", problems_name, replace=True)
OmegaConf.register_new_resolver("policy_name", policy_name, replace=True)

"""`masa.load`: a trained model that predicts, solves and is evaluated, from Python."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import hydra
import pandas as pd
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from masa import evaluate, predict, solve
from masa.cli import app
from masa.cli.arguments import quoted
from masa.cli.config_store import conf_dir
from masa.cli.sweep import parse
from masa.errors import ConfigError, require
from masa.evaluation.store import Store
from masa.inference.problems import problems_of
from masa.plugins import escaped

Problems: TypeAlias = str | Path | Sequence[str | Mapping[str, Any]] | pd.DataFrame
"""A file, the text of one problem, or several: texts, or rows with the column `problem`."""


class LoadedModel:
    """A run of masa-train or masa-sft, a folder, or a model of the hub.

    Args:
        model: its name.
        engine: vllm or hf.
        settings: that the commands have in common, as `**{"engine.dtype": "bfloat16"}`.
    """

    def __init__(self, model: str | Path, engine: str = "vllm", **settings: Any) -> None:
        self.arguments = [f"model={model}", f"engine={engine}", *_arguments(settings)]

    def predict(self, problems: Problems, samples: int = 8, **settings: Any) -> pd.DataFrame:
        """Predictions about problems.

        Args:
            problems: what they are about.
            samples: M, predictions per problem.
            settings: of `masa-predict`.

        Returns:
            One row per problem; columns as of `masa.predict.predicted`.

        Raises:
            ConfigError: there is no such model or setting, or the problems cannot be read.
            TrainingError: the model does not know the form of predictions.
        """
        with _directory(None) as directory:
            own = [f"meta_samples={samples}", *_problems(problems, directory, settings)]
            cfg = _composed("predict", predict.arguments([*self.arguments, *own]), directory)
            return predict.predicted(cfg, predict.check(cfg))

    def solve(
        self,
        problems: Problems,
        budget: int | None = None,
        policy: str = "combined",
        **settings: Any,
    ) -> pd.DataFrame:
        """Answers to problems.

        Args:
            problems: what is asked.
            budget: tokens per problem, on average; None for as many as the policy wants.
            policy: option of the group `solve`.
            settings: of `masa-solve`: `**{"solve.abstain": 0.5}`.

        Returns:
            One row per problem; columns as of `masa.solve.solved`.

        Raises:
            ConfigError: as of `predict`; the task cannot hold two answers equal, or the budget is
                below one sample.
            TrainingError: the policy goes by predictions, and the model does not know their form.
        """
        with _directory(None) as directory:
            own = [f"solve={policy}", f"budget={'null' if budget is None else budget}"]
            own += _problems(problems, directory, settings)
            cfg = _composed("solve", predict.arguments([*self.arguments, *own]), directory)
            return solve.solved(cfg, solve.check(cfg))

    def evaluate(
        self,
        benchmark: str,
        policies: Sequence[str] = (),
        out: str | Path | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Scores on benchmarks, as `masa-eval` writes them to results.json.

        Args:
            benchmark: options of the group `benchmark`, with commas between them.
            policies: options of the group `solve` to compare on them.
            out: directory of the samples, in which one that was stopped goes on; None for one that
                is removed.
            settings: of `masa-eval`.

        Raises:
            ConfigError: as of `predict`, or a benchmark cannot be read.
        """
        with _directory(out) as directory:
            own = [f"benchmark={benchmark}", *_arguments(settings)]
            own += [f"solve={','.join(policies)}"] if policies else []
            cfg = _composed("evaluate", evaluate.arguments([*self.arguments, *own]), directory)
            config = evaluate.check(cfg)
            with app.locked(directory):
                evaluate.evaluate(cfg, config, directory)
            return Store(directory).results()


def load(model: str | Path, engine: str = "vllm", **settings: Any) -> LoadedModel:
    """A model to predict, solve and evaluate with; see `LoadedModel`."""
    return LoadedModel(model, engine, **settings)


def _arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings by dotted name as Hydra's overrides."""
    return [f"{name}={_literal(value)}" for name, value in settings.items()]


def _literal(value: Any) -> str:
    """A value in Hydra's grammar, whose keys have no quotes."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_literal, value)) + "]"
    return quoted(escaped(str(value))) if isinstance(value, str | Path) else json.dumps(value)


def _problems(problems: Problems, directory: Path, settings: Mapping[str, Any]) -> Sequence[str]:
    """The arguments that name the problems, of which several are written into a file, and the
    other settings."""
    require("out" not in settings, "out is for the commands: here the result is returned")
    if isinstance(problems, str | Path):
        return [f"problems={problems}", *_arguments(settings)]
    column = str(settings.get("column", "problem"))
    if isinstance(problems, pd.DataFrame):
        problems = problems.to_dict("records")
    require(not isinstance(problems, Mapping), "problems is one row: give a list of rows")
    prompts = problems_of(problems, column, "problems")
    path = directory / "problems.jsonl"
    # what is read of them alone: a frame has arrays and dates as well, which JSON has not
    rows = [{column: p.problem, "id": p.id, "answer": p.answer or None} for p in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [f"problems={path}", *_arguments(settings)]


@contextmanager
def _directory(out: str | Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)
    else:
        yield Path(out).expanduser()


def _composed(name: str, arguments: Sequence[str], directory: Path) -> DictConfig:
    place = f"++output_dir={quoted(str(directory))}"
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            parse(arguments)
            return hydra.compose(name, [*arguments, place])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(app.one_line(error, name, arguments)) from error

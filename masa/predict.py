"""`masa-predict`: what a model predicts of problems."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd
from omegaconf import DictConfig

from masa.cli import app
from masa.cli.arguments import path_arguments, quoted
from masa.cli.config_store import conf_dir
from masa.errors import ConfigError
from masa.evaluation.eval_config import load_settings
from masa.inference.inference_config import PredictConfig
from masa.inference.predictions import PredictionSummary
from masa.inference.solving import predict
from masa.inference_session import answering, check_inference, run_inference, session
from masa.markdown import in_one_line, markdown_table
from masa.plugins import escaped


def arguments(argv: Sequence[str]) -> list[str]:
    """The command line in the syntax of Hydra: `problems` may be any text, `model` a folder or a
    hub id as well as an option of its group."""
    adapted = []
    for argument in argv:
        key, equals, value = argument.partition("=")
        if key == "problems" and equals:
            if not value.strip():
                raise ConfigError("problems is empty: name a file, a text, or - for stdin")
            argument = f"problems={quoted(escaped(value))}"
        elif key == "model" and not os.path.isfile(conf_dir() / "model" / f"{value}.yaml"):
            argument = f"model.name={value}"
        elif key == "out" and equals:
            argument = argument if value == "null" else f"out={quoted(value)}"
        adapted.append(argument)
    return path_arguments(adapted)


def check(cfg: DictConfig) -> PredictConfig:
    """Raise ConfigError for errors that show without loading models; returns the settings."""
    config = load_settings(PredictConfig, cfg)
    check_inference(cfg, config)
    return config


def run(cfg: DictConfig) -> None:
    """One command."""
    config = load_settings(PredictConfig, cfg)
    run_inference(config, lambda: predicted(cfg, config), as_text)


def predicted(cfg: DictConfig, config: PredictConfig) -> pd.DataFrame:
    """Predictions, one row per problem.

    Returns:
        id, problem, pass_rate (mean) and pass_rate_std, mixed (mean predicted probability of a
        mixed group, where predictions are asked for it), length (mean, tokens), length_min and
        length_max, notions (the most frequent first), parsed (share of the predictions that could
        be read), tokens (of the predictions).

    Raises:
        TrainingError: not one prediction could be read.
    """
    limits = {"meta": config.meta_max_tokens}
    with session(cfg, config, answering(cfg, "math").templates, limits, {}) as samples:
        summaries = predict(
            samples.prompts,
            config.meta_samples,
            config.meta_max_tokens,
            samples,
            samples.renderer.parse,
        )
    return pd.DataFrame(
        [
            {"id": prompt.id, "problem": prompt.problem, **columns(summary)}
            for prompt, summary in zip(samples.prompts, summaries, strict=True)
        ]
    )


def columns(summary: PredictionSummary) -> dict[str, object]:
    """The columns of a summary."""
    low, high = summary.length_range or (None, None)
    return {
        "pass_rate": summary.pass_rate,
        "pass_rate_std": summary.pass_rate_std,
        "mixed": summary.mixed,
        "length": summary.length,
        "length_min": low,
        "length_max": high,
        "notions": list(summary.notions),
        "parsed": summary.parsed_share,
        "tokens": summary.tokens,
    }


def as_text(table: pd.DataFrame) -> str:
    """The predictions as a table, and the share that could be read."""
    rows = [["id", "problem", "pass rate", "length", "notions", "parsed"]]
    for row in table.itertuples():
        rate = "–" if pd.isna(row.pass_rate) else f"{row.pass_rate:.2f} ± {row.pass_rate_std:.2f}"
        length = "–"
        if not pd.isna(row.length):
            length = f"{row.length:.0f} [{row.length_min:.0f}, {row.length_max:.0f}]"
        notions = in_one_line(", ".join(row.notions), 32)
        about = in_one_line(row.problem, 48)
        rows.append([str(row.id), about, rate, length, notions, f"{100 * row.parsed:.0f} %"])
    return (
        f"{markdown_table(rows)}\n\nMean and standard deviation of the predicted pass rates; mean "
        f"[smallest, largest] of the predicted lengths (tokens). {100 * table['parsed'].mean():.0f}"
        f" % of the predictions could be read; {table['tokens'].sum():,} tokens."
    )


def main() -> None:
    """Console script."""
    app.hydra_main("masa-predict", "predict", check, run, arguments)


if __name__ == "__main__":
    main()

"""`masa-solve`: answers to problems, with as many samples as each is worth."""

from __future__ import annotations

import pandas as pd
from omegaconf import DictConfig

from masa.cli import app
from masa.config import with_settings
from masa.errors import require
from masa.evaluation.eval_config import load_settings, typed
from masa.inference.inference_config import PolicyConfig, SolveConfig
from masa.inference.policies import Policy
from masa.inference.predictions import PredictionSummary
from masa.inference.solving import Limits, predict, solve
from masa.inference_session import answering, check_inference, run_inference, session
from masa.markdown import in_one_line, markdown_table
from masa.plugins import build_plugin
from masa.predict import arguments


def check(cfg: DictConfig) -> SolveConfig:
    """Raise ConfigError for errors that show without loading models; returns the settings."""
    config = load_settings(SolveConfig, cfg)
    policy, own = _policy(config)
    _limits(config).check_budget(own.meta_samples if policy.needs_predictions else 0)
    check_inference(cfg, config)
    answering(cfg, config.verifier).same("", "")
    return config


def run(cfg: DictConfig) -> None:
    """One command."""
    config = load_settings(SolveConfig, cfg)
    run_inference(config, lambda: solved(cfg, config), lambda table: as_text(table, config.budget))


def solved(cfg: DictConfig, config: SolveConfig) -> pd.DataFrame:
    """Answers, one row per problem.

    Returns:
        id, problem, answer (null where there is none), confidence, abstained, votes (samples with
        this answer), samples, tokens (of the samples), meta_tokens (of the predictions), predicted
        pass_rate and length, parsed (share of the predictions that could be read), response (the
        first sample with this answer).

    Raises:
        TrainingError: the policy goes by predictions, and not one could be read.
    """
    asked = answering(cfg, config.verifier)
    policy, own = _policy(config)
    settings = {
        "policy": own.settings,
        "meta_samples": own.meta_samples,
        "budget": config.budget,
    }
    limits = {"solution": config.max_tokens}
    if policy.needs_predictions:
        limits["meta"] = config.meta_max_tokens
    predictions: list[PredictionSummary] | None = None
    with session(cfg, config, asked.templates, limits, settings) as samples:
        if policy.needs_predictions:
            predictions = predict(
                samples.prompts,
                own.meta_samples,
                config.meta_max_tokens,
                samples,
                samples.renderer.parse,
            )
        answers = solve(
            samples.prompts,
            policy,
            predictions,
            asked.same,
            samples,
            _limits(config),
            own.abstain,
        )
    return pd.DataFrame(
        [
            {
                "id": one.prompt.id,
                "problem": one.prompt.problem,
                "answer": None if one.response is None else asked.answer_in(one.response),
                "confidence": one.confidence,
                "abstained": one.abstained,
                "votes": one.votes,
                "samples": one.samples,
                "tokens": one.tokens,
                "meta_tokens": one.meta_tokens,
                "pass_rate": None if one.prediction is None else one.prediction.pass_rate,
                "length": None if one.prediction is None else one.prediction.length,
                "parsed": None if one.prediction is None else one.prediction.parsed_share,
                "response": one.response,
            }
            for one in answers
        ]
    )


def _policy(config: SolveConfig) -> tuple[Policy, PolicyConfig]:
    require(bool(config.solve), "name the policy: solve=combined")
    own = typed(PolicyConfig, with_settings(dict(config.solve), PolicyConfig), "solve.")
    return build_plugin("solve", own.settings, Policy), own


def _limits(config: SolveConfig) -> Limits:
    return Limits(config.max_tokens, config.meta_max_tokens, config.min_length, config.budget)


def as_text(table: pd.DataFrame, budget: int | None) -> str:
    """The answers as a table, and what was spent."""
    rows = [["id", "problem", "answer", "confidence", "votes", "tokens"]]
    for row in table.itertuples():
        answer = "abstains" if row.abstained else "no answer" if pd.isna(row.answer) else row.answer
        rows.append(
            [
                str(row.id),
                in_one_line(row.problem, 48),
                in_one_line(str(answer), 32),
                f"{row.confidence:.2f}",
                f"{row.votes} of {row.samples}",
                f"{row.tokens + row.meta_tokens:,}",
            ]
        )
    tokens, meta = table["tokens"].sum(), table["meta_tokens"].sum()
    parts = [
        f"{len(table)} problems, {table['samples'].sum()} samples, {tokens + meta:,} tokens",
        f"{meta:,} of them for predictions, of which {table['parsed'].mean():.0%} could be read"
        if meta
        else "",
        f"budget {budget * len(table):,}" if budget is not None else "",
        f"{table['abstained'].sum()} abstained" if table["abstained"].any() else "",
    ]
    return f"{markdown_table(rows)}\n\n{'; '.join(part for part in parts if part)}."


def main() -> None:
    """Console script."""
    app.hydra_main("masa-solve", "solve", check, run, arguments)


if __name__ == "__main__":
    main()

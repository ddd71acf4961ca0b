"""A step of a run on many GPUs, simulated: its seconds, idle share, and what would shorten it.

    python experiments/cluster/cluster.py RUN [--gpus 8 64 512]        # lengths of a run's rollouts
    python experiments/cluster/cluster.py --median 2000 --sigma 1      # log-normal, cut at --limit
    python experiments/cluster/cluster.py --check RUN                  # against the run's own steps

Decoding one token for each of b sequences takes `latency + b * each` seconds on one engine, all
sequences of a rollout start at once as far as `--at-once` lets them, and every rank waits for the
last. Predictions come before all solutions. An update takes `train` seconds per token of the mixed
groups and of the predictions, over the ranks evenly.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import nnls

from masa.analysis.load import Run, RunError, load_run
from masa.markdown import markdown_table

Floats = npt.NDArray[np.float64]
Group = npt.NDArray[np.int64]
"""Lengths of the solutions of one prompt, [G]."""


@dataclass(frozen=True)
class Speed:
    """Of one engine and one rank."""

    latency: float
    """Seconds of a decoding step, whatever it decodes."""
    each: float
    """Seconds more per sequence in it."""
    train: float
    """Seconds of an update per token that has a gradient."""
    fixed: float
    """Seconds of a step that depend on nothing: weight sync, gathering, writing."""
    at_once: int = 256
    """Sequences that an engine decodes at a time; others wait."""
    prediction: int = 0
    """Tokens of the longest prediction."""

    def decoding(self, lengths: Iterable[int]) -> float:
        """Seconds of one engine for sequences of these lengths, which begin in this order."""
        waiting = list(lengths)[::-1]
        active: list[int] = []
        seconds, done = 0.0, 0
        while waiting or active:
            while waiting and len(active) < self.at_once:
                heapq.heappush(active, done + waiting.pop())
            end = active[0]
            seconds += (end - done) * (self.latency + self.each * len(active))
            done = end
            while active and active[0] == end:
                heapq.heappop(active)
        return seconds


@dataclass(frozen=True)
class Step:
    """A simulated step."""

    seconds: float
    idle: float
    """Share of the ranks' time in which they wait."""
    mixed: float
    """Groups with a gradient."""


@dataclass(frozen=True)
class Method:
    """What is done beside the plain step."""

    kept_mixed: float = 1.0
    """Share of the mixed groups that the gate keeps."""
    kept_others: float = 1.0
    """Share of the other groups that it keeps; all cost alike."""
    predictions: float = 0.0
    """Tokens of predictions over solution tokens without a gate."""
    cut: float = 1.0
    """Quantile of the lengths at which solutions are stopped."""
    refill: bool = False
    """Other prompts take the places of skipped ones."""
    balanced: bool = False
    """Prompts go to engines by their tokens, the longest first, as if these were known."""
    off_policy: bool = False
    """Some GPUs sample while the others train on the solutions of the step before, in the best of
    seven splits."""


def simulate(
    groups: Sequence[Group], ranks: int, speed: Speed, method: Method, mixed: float,
    rng: np.random.Generator,
) -> Step:  # fmt: skip
    """One step.

    Args:
        groups: the prompts of the step, before the gate.
        ranks: GPUs, each with an engine of its own.
        speed: of one of them.
        method: what is done.
        mixed: share of the groups that have a gradient.
        rng: chooses what is kept.
    """
    kept = mixed * method.kept_mixed + (1 - mixed) * method.kept_others
    keep = 1.0 if method.refill else kept
    limit = np.quantile(np.concatenate(list(groups)), method.cut)
    drawn = [np.minimum(group, limit).astype(int) for group in groups]
    lengths = [group for group in drawn if rng.random() < keep] or drawn[:1]
    if method.balanced:
        lengths.sort(key=lambda group: -group.mean())
    asked = method.predictions * sum(int(group.sum()) for group in groups)
    signal = mixed * method.kept_mixed
    # a refill asks again for as many prompts as were skipped
    rounds = 2 if method.refill else 1
    if method.refill:
        asked, signal = asked / kept, signal / kept
    waiting = rounds * speed.latency * speed.prediction if asked else 0.0
    # mixed groups are as long as others
    learned = signal * sum(int(group.sum()) for group in drawn) + asked

    def sampling(engines: int) -> Floats:
        decoding = [speed.decoding(share) for share in shares(lengths, engines, method.balanced)]
        return np.array(decoding) + waiting + speed.each * asked / engines

    def training(trainers: int) -> float:
        return speed.train * learned / trainers

    sampled, trained = sampling(ranks), training(ranks)
    seconds = float(sampled.max()) + trained
    busy = float(sampled.sum()) + ranks * trained
    if method.off_policy:
        for engines in {ranks * n // 8 for n in range(1, 8)} - {0}:
            sampled, trained = sampling(engines), training(ranks - engines)
            if (longer := max(float(sampled.max()), trained)) < seconds:
                seconds, busy = longer, float(sampled.sum()) + (ranks - engines) * trained
    seconds += speed.fixed
    busy += ranks * speed.fixed
    return Step(seconds, 1 - busy / (ranks * seconds), signal * len(groups))


def shares(groups: Sequence[Group], engines: int, balanced: bool) -> list[list[int]]:
    """Lengths per engine: whole groups, in turn or to the one that has least."""
    taken: list[list[int]] = [[] for _ in range(engines)]
    load = np.zeros(engines)
    for i, group in enumerate(groups):
        to = int(load.argmin()) if balanced else i % engines
        taken[to] += group.tolist()
        load[to] += group.sum()
    return taken


CLAIM = Path(__file__).parents[1] / "claim" / "results.json"


def measured_gate(method: str = "masa_calibrated_family") -> Method:
    """What the gate of a method kept while it acted, in the published numbers of the claim."""
    factors = json.loads(CLAIM.read_text(encoding="utf-8"))["factors"][method]
    kept, skipped, zero, asked = (
        factors[name]["mean"]
        for name in ("signal_kept", "skipped_share", "zero_variance_share", "prediction_cost")
    )
    # of all prompts 1 - skipped are kept
    others = (1 - skipped - kept * (1 - zero)) / zero
    return Method(kept_mixed=kept, kept_others=others, predictions=asked)


GATE = measured_gate()
CUT = 0.9
METHODS = {
    "plain": Method(),
    "gate": GATE,
    "gate, refill": replace(GATE, refill=True),
    "cutoff": Method(cut=CUT),
    "balanced": Method(balanced=True),
    "one step off": Method(off_policy=True),
    "gate, refill, cutoff, balanced, one step off": replace(
        GATE, refill=True, cut=CUT, balanced=True, off_policy=True
    ),
}


def solutions_of(run: Run) -> pd.DataFrame:
    """Those that were trained on, a row each."""
    return run.rollouts[(run.rollouts["split"] == "train") & (run.rollouts["kind"] == "solution")]


def groups_of(run: Run) -> dict[int, list[Group]]:
    """Solution lengths per prompt of every training step."""
    return {
        int(step): [g["tokens"].to_numpy() for _, g in part.groupby("prompt_id", sort=False)]
        for step, part in solutions_of(run).groupby("step")
    }


def mixed_tokens(run: Run) -> dict[int, float]:
    """Share of the solution tokens of every training step that are those of mixed groups."""
    groups = solutions_of(run).groupby(["step", "prompt_id"])
    tokens, mixed = groups["tokens"].sum(), groups["correct"].nunique() > 1
    shares = tokens.where(mixed, 0).groupby("step").sum() / tokens.groupby("step").sum()
    return {int(step): float(share) for step, share in shares.items()}


def mixed_share(run: Run) -> float:
    """Share of a run's training groups, of prompts that were not skipped, that have right and wrong
    solutions."""
    prompts = run.train_prompts
    return float(prompts.loc[prompts["samples"] > 0, "mixed"].mean())


def drawn(args: argparse.Namespace, rng: np.random.Generator) -> list[list[Group]]:
    """Steps of log-normal lengths; half of the variance of their logarithm is the prompt's."""
    spread = args.sigma / np.sqrt(2)
    steps = []
    for _ in range(args.steps):
        medians = args.median * np.exp(rng.normal(0, spread, args.prompts))
        lengths = medians[:, None] * np.exp(rng.normal(0, spread, (args.prompts, args.group)))
        steps.append(list(np.clip(lengths, 1, args.limit).astype(np.int64)))
    return steps


def table(steps: Sequence[Sequence[Group]], gpus: Sequence[int], speed: Speed, mixed: float) -> str:
    """Step time, idle share, and seconds per mixed group beside the plain step."""
    lines = [["GPUs", "", "seconds", "idle", "seconds per mixed group, plain / this"]]
    for ranks in gpus:
        plain = None
        for name, method in METHODS.items():
            rng = np.random.default_rng(0)
            made = [simulate(step, ranks, speed, method, mixed, rng) for step in steps]
            seconds = float(np.mean([step.seconds for step in made]))
            each = seconds / float(np.mean([step.mixed for step in made]))
            plain = plain or each
            idle = np.mean([step.idle for step in made])
            lines.append([f"{ranks}", name, f"{seconds:.3g}", f"{idle:.2f}", f"{plain / each:.2f}"])
    return markdown_table(lines)


def fitted(
    steps: Sequence[Sequence[Group]], mixed: Sequence[float], times: pd.DataFrame, ranks: int
) -> Speed:
    """The speeds under which simulated steps are nearest to measured ones, none below 0; `mixed` is
    the share of the tokens of each step that have a gradient."""
    slowest = [max(shares(groups, ranks, False), key=sum) for groups in steps]
    work = np.array([[max(share), sum(share)] for share in slowest], float)
    tokens = np.array([sum(int(g.sum()) for g in groups) for groups in steps])
    trained = np.array(mixed) * tokens / ranks
    latency, each = nnls(work, times["timing_s/generate"].to_numpy())[0].tolist()
    (train,) = nnls(trained[:, None], times["timing_s/update"].to_numpy())[0].tolist()
    rest = times["timing_s/step"] - times["timing_s/generate"] - times["timing_s/update"]
    return Speed(latency, each, train, float(rest.mean()), max(map(len, slowest)))


def check(run: Run, ranks: int) -> str:
    """Speeds from the odd steps of a run of plain GRPO, and the error of simulated even ones."""
    times = pd.read_csv(run.path / "timings.csv").groupby("step").last()
    steps, mixed = groups_of(run), mixed_tokens(run)
    odd, even = list(steps)[::2], list(steps)[1::2]
    speed = fitted([steps[n] for n in odd], [mixed[n] for n in odd], times.loc[odd], ranks)
    rng = np.random.default_rng(0)
    made = [simulate(steps[n], ranks, speed, Method(), mixed[n], rng).seconds for n in even]
    measured = times.loc[even, "timing_s/step"].to_numpy()
    error = sum(made) / measured.sum() - 1
    typical = np.median(np.abs(made / measured - 1))
    constant = times.loc[odd, "timing_s/step"].mean()
    of_constant = np.median(np.abs(constant / measured - 1))
    return (
        f"{speed}\n{ranks} ranks, {len(even)} steps: {measured.mean():.3f} s measured, "
        f"{np.mean(made):.3f} s simulated ({error:+.1%}; median error of a step {typical:.1%}, of "
        f"the mean of the odd steps {of_constant:.1%})"
    )


def main() -> None:
    """Print the table, or the check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, help="whose lengths are taken")
    parser.add_argument("--check", action="store_true", help="against the run's own steps")
    parser.add_argument("--ranks", type=int, default=1, help="of the run, with --check")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--prediction", type=int, default=200, help="longest prediction (tokens)")
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--median", type=float, default=2000)
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--limit", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--mixed", type=float, help="share of mixed groups: of RUN, else 0.3")
    parser.add_argument("--latency", type=float, default=0.012, help="of a decoding step (s)")
    parser.add_argument("--each", type=float, default=5e-5, help="more per sequence (s)")
    parser.add_argument(
        "--train", type=float, default=1.6e-4, help="of an update per trained token (s)"
    )
    parser.add_argument("--fixed", type=float, default=5.0, help="of a step (s)")
    parser.add_argument("--at-once", type=int, default=256, help="sequences per engine")
    args = parser.parse_args()
    try:
        run = load_run(args.run) if args.run else None
    except RunError as error:
        parser.exit(1, f"cluster.py: {error}\n")
    if args.check:
        if run is None:
            parser.error("--check needs a run")
        print(check(run, args.ranks))
        return
    steps = list(groups_of(run).values()) if run else drawn(args, np.random.default_rng(0))
    if (most := max(args.gpus)) > (fewest := min(map(len, steps))):
        parser.error(f"{most} GPUs for {fewest} prompts: a GPU takes whole prompts")
    speed = Speed(args.latency, args.each, args.train, args.fixed, args.at_once, args.prediction)
    mixed = args.mixed if args.mixed is not None else mixed_share(run) if run else 0.3
    print(table(steps, args.gpus, speed, mixed))


if __name__ == "__main__":
    main()

"""Methods over seeds: closed forms, scipy, and the report of a sweep."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from synthetic_run import Rows, prompt_rows, simulated_run, write_run

from masa.analysis import load_sweep, report_texts, tables
from masa.analysis.compare_methods import (
    _pooled,
    ablation,
    at_budget,
    baseline_index,
    limits,
    over_seeds,
    speedup,
    speedups,
)
from masa.analysis.control import control_table, held_out_gate_table
from masa.analysis.load import RunError, load_run, progress
from masa.analysis.method_figures import before_repeats, dynamics, gate_figure, over_training
from masa.analysis.page import to_html
from masa.report import main
from masa.statistics import Estimate, t_mean, wilson

MIXED = [True, False]


def curve(
    root: Path,
    method: str,
    seed: int,
    rights: dict[int, int],
    tokens: int = 100,
    setting: float | None = 0.0,
) -> Path:
    """Held-out accuracy `rights[step]` / 8, two training solutions of `tokens` tokens a step."""
    rows: Rows = []
    for step in range(max(rights) + 1):
        if step:
            rows += prompt_rows("train", step, f"t{step}", MIXED, tokens=tokens)
        for i in range(4) if step in rights else ():
            rows += prompt_rows("val", step, f"v{i}", [j < rights[step] for j in range(8)])
    path = write_run(root / f"{method}-{setting}-seed{seed}", rows, method=method, seed=seed)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["algorithm"]["meta"] = {"coef": setting}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def test_bounds_of_shares_are_cut(tmp_path: Path) -> None:
    for seed, right in enumerate((8, 8, 6)):
        curve(tmp_path, "grpo", seed, {0: 2, 10: right})
        curve(tmp_path, "masa", seed, {0: 2, 10: 8})
    methods = load_sweep(tmp_path)
    end = over_seeds(methods, tables.headline)["accuracy, end"][0]
    assert t_mean([1, 1, 0.75]).high > 1 and end.high == 1 and end.low > 0.5
    assert over_training(methods, "accuracy")[0]["high"].max() == 1
    table = at_budget(methods, 0)
    assert table["accuracy"].map(lambda e: e.high).max() == 1
    assert limits("pass-rate corr, end") == (-1, 1)
    assert limits("correct lost to cutoff") == limits("seconds") == (-np.inf, np.inf)
    assert "held-out prompts are taken as fixed" in report_texts.OVER_SEEDS


def test_what_a_run_prints_and_keeps_makes_no_method(tmp_path: Path) -> None:
    for seed, shown in ((0, None), (1, 0), (2, 5)):
        config = curve(tmp_path, "masa", seed, {0: 1, 2: 4}) / "config.yaml"
        settings = yaml.safe_load(config.read_text())
        if shown is not None:
            settings.setdefault("trainer", {})["show_every"] = shown
        config.write_text(yaml.safe_dump(settings))
    assert [method.seeds for method in load_sweep(tmp_path)] == [[0, 1, 2]]


def test_a_seed_that_was_resumed_with_smaller_micro_batches_is_one_of_its_method(tmp_path: Path):
    def laid_out(name: str, seed: int, tokens: int) -> None:
        config = curve(tmp_path / name, "grpo", seed, {0: 1, 2: 4}) / "config.yaml"
        settings = yaml.safe_load(config.read_text())
        settings.setdefault("trainer", {})["micro_batch_tokens"] = tokens
        config.write_text(yaml.safe_dump(settings))

    for seed, tokens in ((0, 4096), (1, 2048), (2, 4096)):
        laid_out("sweep", seed, tokens)
    (method,) = load_sweep(tmp_path)
    assert (method.label, method.seeds) == ("grpo", [0, 1, 2])
    # a seed of each is a comparison of the two
    for seed in (0, 1):
        laid_out("more", seed, 4096 if seed else 2048)
    both = {method.label: method.seeds for method in load_sweep(tmp_path)}
    assert both == {
        "grpo, micro_batch_tokens=4096": [0, 1, 2], "grpo, micro_batch_tokens=2048": [0, 1],
    }  # fmt: skip


def test_a_setting_of_many_lines_is_named_in_one(tmp_path: Path) -> None:
    for seed, text in enumerate(("{problem}\n\nWork it out, " + "step by step, " * 9, "short")):
        config = curve(tmp_path, "grpo", seed, {0: 1, 2: 4}) / "config.yaml"
        settings = yaml.safe_load(config.read_text())
        settings.setdefault("task", {})["solution"] = text
        config.write_text(yaml.safe_dump(settings))
    labels = [method.label for method in load_sweep(tmp_path)]
    assert len(labels) == 2 and all("\n" not in label and len(label) < 80 for label in labels)


def test_a_sampler_makes_a_method(tmp_path: Path) -> None:
    """A run of before there were any had shuffled epochs."""
    shuffled = {"_target_": "masa.rollout.samplers.ShuffledEpochs"}
    mopps = {"_target_": "masa.rollout.outcome_samplers.MoPPS", "decay": 0.5}
    for seed, sampler in enumerate((None, shuffled, mopps, mopps | {"decay": 0.7})):
        config = curve(tmp_path, "grpo", seed, {0: 1, 2: 4}) / "config.yaml"
        settings = yaml.safe_load(config.read_text())
        if sampler is not None:
            settings["sampler"] = sampler
        config.write_text(yaml.safe_dump(settings))
    assert [method.seeds for method in load_sweep(tmp_path)] == [[0, 1], [2], [3]]


def test_runs_are_grouped_by_settings(tmp_path: Path) -> None:
    for seed in (1, 0):
        for setting in (0.0, 0.5):
            curve(tmp_path, "masa", seed, {0: 1, 2: 4}, setting=setting)
    methods = load_sweep(tmp_path)
    assert [method.label for method in methods] == ["masa, coef=0.0", "masa, coef=0.5"]
    assert [method.seeds for method in methods] == [[0, 1], [0, 1]]
    assert baseline_index(methods, "masa, coef=0.5") == 1
    with pytest.raises(RunError, match="no method is called grpo"):
        baseline_index(methods, "grpo")
    twice = curve(tmp_path / "again", "masa", 0, {0: 1, 2: 4})
    with pytest.raises(RunError, match="same method and seed"):
        load_sweep(tmp_path, twice)


def test_a_setting_that_came_later_makes_no_other_method(tmp_path: Path) -> None:
    for seed, setting in enumerate(({}, {"came": None, "number": 1}, {"number": 1.0})):
        path = curve(tmp_path, "masa", seed, {0: 1, 2: 4})
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["algorithm"]["later"] = {"number": 1} | setting
        (path / "config.yaml").write_text(yaml.safe_dump(config))
    (method,) = load_sweep(tmp_path)
    assert (method.label, method.seeds) == ("masa", [0, 1, 2])


def test_null_is_named_beside_other_values(tmp_path: Path) -> None:
    for setting in (None, 5):
        curve(tmp_path, "masa", 0, {0: 1, 2: 4}, setting=setting)
    labels = [method.label for method in load_sweep(tmp_path)]
    assert sorted(labels) == ["masa, coef=5", "masa, coef=None"]


def planned(path: Path, rollouts: int) -> Path:
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["trainer"] = {"max_rollouts": rollouts}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def test_unfinished_runs_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        planned(curve(tmp_path, "grpo", seed, {0: 2, 10: 4}), 10)
        planned(curve(tmp_path, "masa", seed, {0: 2, 10: 6} if seed else {0: 2, 5: 3}), 10)
    begun = planned(curve(tmp_path, "dapo", 0, {0: 2, 1: 2}), 10)
    (tmp_path / "dapo-seed1").mkdir()
    (tmp_path / "dapo-seed1" / "console.txt").write_text("no such device\n")
    with pytest.warns(UserWarning, match="masa-0.0-seed0: 5 of 10 rollouts"):
        methods = load_sweep(tmp_path)
    assert [(method.label, method.seeds) for method in methods] == [
        ("grpo", [0, 1, 2]), ("masa", [1, 2]),
    ]  # fmt: skip
    assert set(at_budget(methods, 0).query("equal == 'rollouts'")["budget"]) == {10}
    assert main([str(tmp_path)]) == 0
    for text in (capsys.readouterr().out, (tmp_path / "report.md").read_text()):
        assert "Left out, not finished:" in text and "masa-0.0-seed0: 5 of 10 rollouts" in text
        assert f"{begun}: 1 of 10 rollouts" in text and "dapo-seed1: no rollouts" in text
    # alone, a run is shown as far as it is
    assert main([str(begun)]) == 0
    assert main([str(begun), str(tmp_path / "dapo-seed1")]) == 2
    assert "no run is finished" in capsys.readouterr().err


def test_a_run_without_its_last_validation_is_not_finished(tmp_path: Path) -> None:
    run = planned(curve(tmp_path, "grpo", 0, {0: 2, 10: 4}), 10)
    assert progress(run) == (10, 10)
    metrics = pd.read_csv(run / "metrics.csv")
    metrics.loc[metrics["step"] == 10, "val/accuracy"] = None
    metrics.to_csv(run / "metrics.csv", index=False)
    assert progress(run) == (9, 10)
    # a replay has no other ones to come
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["engine"] = {"_target_": "masa.engine.recorded.RecordedEngine"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert progress(run) == (10, 10)


def test_what_a_run_spent_before_it_went_on_in_another_directory_is_not_known(
    tmp_path: Path,
) -> None:
    run = curve(tmp_path, "grpo", 0, {0: 2, 2: 3, 4: 4})
    whole = load_run(run).metrics
    assert whole["seconds"].notna().all() and whole["tokens"].notna().all()
    metrics = pd.read_csv(run / "metrics.csv")
    metrics[metrics["step"] > 1].to_csv(run / "metrics.csv", index=False)
    later = load_run(run).metrics
    assert later["seconds"].isna().all()


def test_speedup_is_exact_where_all_seeds_agree(tmp_path: Path) -> None:
    for seed in range(3):
        curve(tmp_path, "grpo", seed, {0: 2, 10: 4, 20: 6})
        curve(tmp_path, "masa", seed, {0: 2, 10: 6, 20: 7}, tokens=150)
        curve(tmp_path, "slow", seed, {0: 2, 20: 5}, tokens=50)
    methods = load_sweep(tmp_path)
    table = speedups(methods, 0).set_index(["method", "target"])
    full = "100 % of the gain (0.750)"
    ratio = table.loc[("masa", full)]
    assert [ratio["rollouts, baseline / method"].value] * 3 == pytest.approx(
        [ratio["rollouts, baseline / method"].low, ratio["seconds, baseline / method"].high, 2.0]
    )
    assert ratio["tokens, baseline / method"].value == pytest.approx(2 * 100 / 150)
    assert ratio["flops, baseline / method"].value == pytest.approx(2 * 100 / 150)
    assert (
        table.loc[("slow", full), "tokens, baseline / method"]
        == "not reached (best 0.625 [0.625, 0.625])"
    )


def test_the_last_value_is_all_of_the_gain() -> None:
    assert 0.3 + (0.9 - 0.3) > 0.9

    class Rising:
        def curve(self, cost: str) -> tuple[np.ndarray, np.ndarray]:
            return np.array([0.0, 10.0]), np.array([0.3, 0.9])

    assert speedup([(Rising(), Rising())] * 2, "tokens", 1.0).value == 1


def test_words_instead_of_a_ratio_where_there_is_none(tmp_path: Path) -> None:
    rights = {
        "grpo": {0: 2, 10: 6}, "good": {0: 7, 10: 8}, "late": {0: 2, 10: 4}, "flat": {0: 4, 10: 4},
    }  # fmt: skip
    for seed in range(2):
        for method, right in rights.items():
            curve(tmp_path, method, seed, right)
    methods = load_sweep(tmp_path)
    base = {method.label: i for i, method in enumerate(methods)}
    against_grpo = speedups(methods, base["grpo"]).query("target.str.startswith('100')")
    cells = against_grpo.set_index("method")["tokens, baseline / method"]
    assert cells["good"] == "reached before training (0.875)"
    assert cells["late"] == cells["flat"] == "not reached (best 0.500 [0.500, 0.500])"
    against_flat = speedups(methods, base["flat"])
    assert set(against_flat["tokens, baseline / method"]) == {"baseline did not gain"}


def test_the_best_that_was_reached_has_its_interval(tmp_path: Path) -> None:
    for seed, best in enumerate((4, 5, 6)):
        curve(tmp_path, "grpo", seed, {0: 2, 10: 8})
        curve(tmp_path, "masa", seed, {0: 2, 5: best, 10: 3})
    cell = speedups(load_sweep(tmp_path), 0).iloc[-1]["tokens, baseline / method"]
    assert cell == f"not reached (best {t_mean([0.5, 0.625, 0.75])})"


def test_a_sweep_names_its_baseline(tmp_path: Path) -> None:
    paths = [curve(tmp_path, f"masa_m{m}", seed, {0: 2, 9: m}) for m in (4, 8) for seed in (0, 1)]
    for path in paths:
        config = yaml.safe_load((path / "config.yaml").read_text())
        config["sweep"] = {"name": "meta_rollouts", "baseline": "masa_m8"}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
    methods = load_sweep(tmp_path)
    assert [method.label for method in methods] == ["masa_m4", "masa_m8"]
    assert baseline_index(methods) == 1 and baseline_index(methods, "masa_m4") == 0
    assert tables.baseline([method.runs[0] for method in methods]) == 1
    with pytest.raises(RunError, match="no method is called masa_m8; choose a baseline of masa_m4"):
        baseline_index(methods[:1])
    methods[0].runs[0].config["sweep"]["baseline"] = "masa_m4"
    with pytest.raises(RunError, match="several baselines"):
        baseline_index(methods)


def test_speedup_varies_with_the_seeds(tmp_path: Path) -> None:
    for seed, right in enumerate((5, 6, 7, 8)):
        curve(tmp_path, "grpo", seed, {0: 2, 20: 6})
        curve(tmp_path, "masa", seed, {0: 2, 10: right, 20: 8})
    cell = speedups(load_sweep(tmp_path), 0).iloc[-1]["rollouts, baseline / method"]
    assert cell.value == pytest.approx(20 / (10 * 4 / 4.5))
    assert cell.low < cell.value < cell.high


def test_equal_budgets_are_paired_by_seed(tmp_path: Path) -> None:
    gains = []
    for seed, (base, other) in enumerate(((4, 5), (6, 7), (5, 8))):
        curve(tmp_path, "grpo", seed, {0: 2, 10: base})
        curve(tmp_path, "masa", seed, {0: 2, 10: other}, tokens=200)
        gains.append((other - base) / 8)
    methods = load_sweep(tmp_path)
    table = at_budget(methods, 0).set_index(["equal", "method"])
    rollouts = table.loc[("rollouts", "masa")]
    assert rollouts["difference"].value == pytest.approx(np.mean(gains))
    assert rollouts["p (paired t)"] == pytest.approx(stats.ttest_1samp(gains, 0).pvalue)
    # at the 2000 tokens that grpo spent, masa is half way
    half = np.mean([(2 + (other - 2) / 2) / 8 for other in (5, 7, 8)])
    assert table.loc[("tokens", "masa"), "accuracy"].value == pytest.approx(half)
    changed = ablation(methods, 0)
    assert changed["p (Holm)"].iloc[1] == pytest.approx(rollouts["p (paired t)"])


def test_shares_are_pooled_and_numbers_averaged(tmp_path: Path) -> None:
    for seed in range(3):
        rows = prompt_rows("val", 0, "v0", MIXED, [0.5]) + prompt_rows("val", 0, "v1", MIXED)
        for i in range(4):
            rows += prompt_rows("train", 1, f"t{i}", [True] * 2, [1.0], would_skip=i <= seed)
        write_run(tmp_path / str(seed), rows, method="masa", seed=seed)
    (row,) = over_seeds(load_sweep(tmp_path), control_table, ["mode"]).to_dict("records")
    assert (row["method"], row["mode"], row["seeds"]) == ("masa", "shadow", 3)
    assert str(row["gate precision"]).endswith("(6 of 6)")
    assert (row["gate recall"].hits, row["gate recall"].n) == (6, 12)
    assert row["gate recall"].low < 0.25 and row["gate recall"].high > 0.75
    assert row["gate F1"].value == pytest.approx(np.mean([0.4, 2 / 3, 6 / 7]))


def test_a_pooled_share_of_two_seeds_has_a_real_interval() -> None:
    """Student's quantile for two seeds is 12.7 standard errors, which no normal level can say."""
    pooled = _pooled([wilson(900, 1000), wilson(880, 1000)], 2, (0, 1))
    assert isinstance(pooled, Estimate) and pooled.value == 0.89
    assert 0.6 < pooled.low < 0.8 and 0.93 < pooled.high < 1


def test_epochs_end_where_prompts_come_again(tmp_path: Path) -> None:
    rows = prompt_rows("val", 0, "v", MIXED)
    for step in range(1, 8):
        rows += prompt_rows("train", step, f"t{step % 3}", MIXED)
    assert before_repeats(load_run(write_run(tmp_path / "r", rows))) == [3, 6]


@pytest.mark.slow
def test_one_page_without_external_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"held_out": 12, "prompts": 6, "steps": 8, "validate_every": 4}
    plain = small | {"method": "grpo", "start": None, "meta": False}
    for seed in (0, 1):
        simulated_run(tmp_path / f"g{seed}", seed=seed, **plain)
        simulated_run(tmp_path / f"m{seed}", seed=seed, start=4, **small)
    simulated_run(tmp_path / "x", method="masa", start=None, **small)
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    text, html = ((tmp_path / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "report.html" in printed and "accuracy, end" in printed
    assert "no claim about a method** (one seed here: masa)" in text
    for heading in ("Accuracy at equal cost, against grpo", "Time to target", "Gate and cutoff",
                    "Predicted lengths", "Gain and meta reward", "Worst predictions"):  # fmt: skip
        assert f"## {heading}" in text and f"<h2>{heading}" in html
    assert "nan" not in text.lower()
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    names = {"dynamics", "length_calibration", "ablation", "levels", "gate", "shapley"}
    assert names <= {Path(name).stem for name in pictures}
    assert "The claim is at 90 %; 100 % is exploratory" in text
    assert "| predicted pass rate" in text and "| length score" in text
    assert len(pictures) >= 12 and all((tmp_path / name).is_file() for name in pictures)
    sources = re.findall(r'src="([^"]{0,30})', html)
    assert len(sources) == len(pictures)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    narrow = html.split("@media(max-width:40rem)")[1]
    assert "td:first-child,th:first-child{white-space:normal;max-width:8rem}" in narrow
    assert "prefers-color-scheme:dark" in html
    assert not re.findall(r"https?://|<script|<link", html) and 'name="viewport"' in html
    assert main([str(tmp_path), "--baseline", "nothing"]) == 2
    methods = load_sweep(tmp_path)
    over_time = dynamics(methods)
    assert over_time is not None
    assert all(len(axes.collections) >= len(methods) for axes in over_time.axes)  # bands
    gate = gate_figure(
        over_seeds(methods, control_table, ["mode"]),
        over_seeds(methods, held_out_gate_table),
        methods,
    )
    assert gate is not None and [axes.get_title() for axes in gate.axes] == [
        "gate precision", "gate recall", "gate F1", "correct lost to cutoff",
    ]  # fmt: skip


def test_html_has_figures_and_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"png")
    (tmp_path / "secret.txt").write_text("secret")
    others = ["nothere.png", str(tmp_path / "secret.txt"), "figures/../secret.txt", "figures/b.png"]
    text = "# T\n\n![a](figures/a.png)\n\n" + "\n\n".join(f"![x]({other})" for other in others)
    page = to_html(text, tmp_path)
    assert page.count("<img") == 1 and page.count("base64") == 1
    assert all(f"![x]({other})" in page for other in others)


def test_html_shows_what_models_wrote_and_does_not_run_it(tmp_path: Path) -> None:
    page = to_html("# A & B\n\n```text\n<script>alert(1)</script>\n```\n\n<b>x</b>\n", tmp_path)
    assert "<script" not in page and "<b>" not in page and "<title>A &amp; B</title>" in page

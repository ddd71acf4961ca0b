"""Length errors, held-out gates and notions by hand; what a run costs in FLOPs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import group
from synthetic_run import Rows, prompt_rows, write_run

from masa.analysis import load_sweep
from masa.analysis.control import held_out_gate_table
from masa.analysis.gains import gain_table
from masa.analysis.lengths import length_errors, length_pairs, length_table
from masa.analysis.load import load_run
from masa.analysis.method_figures import notions_figure
from masa.analysis.notions import mentions, notion_changes, notion_means, notion_table
from masa.analysis.run_figures import length_calibration
from masa.analysis.scores import score_table
from masa.report import write_report
from masa.tracking.cost import CostMeter, ModelSize
from masa.training.loading import model_size


def test_length_errors_by_hand(tmp_path: Path) -> None:
    lengths = [60, 70, 90]
    rows = prompt_rows(
        "val", 0, "a", [True, True, False], [0.5] * 3, tokens=lengths, cutoff_tokens=65
    )
    rows += prompt_rows("val", 0, "b", [False], [0.5], tokens=10)  # one prediction: no deviation
    rows += prompt_rows("train", 1, "t", [True], [0.5])
    run = load_run(write_run(tmp_path / "r", rows))
    errors = length_errors(run, 0).set_index(["prompt_id", "verdict"])["error"]
    # predicted 64, 68, 72
    assert errors["a", "correct"] == pytest.approx((65 - 68) / 4)
    assert errors["a", "wrong"] == pytest.approx((90 - 68) / 4)
    assert errors.isna()["b", "wrong"]
    correct, wrong = (row for _, row in length_table([run]).iterrows())
    assert correct["median error"].value == pytest.approx(-0.75)
    assert str(correct["kept prompts"]).endswith("(1 of 1)")
    assert str(wrong["kept prompts"]).endswith("(1 of 2)")
    assert (correct["longer than the cutoff"].hits, correct["longer than the cutoff"].n) == (1, 2)
    assert (wrong["longer than the cutoff"].hits, wrong["longer than the cutoff"].n) == (1, 2)


def test_predicted_and_actual_lengths_by_hand(tmp_path: Path) -> None:
    rows = prompt_rows("val", 0, "a", [True, True, False], [0.5] * 3, tokens=[60, 70, 90])
    rows += prompt_rows("val", 0, "b", [False], [0.5])  # no correct solution
    rows += prompt_rows("val", 0, "c", [True], [None])  # no prediction
    rows += prompt_rows("val", 0, "d", [True], [0.5], tokens=50)
    rows += prompt_rows("val", 0, "e", [True], [0.5, None], tokens=80)
    rows += prompt_rows("train", 1, "t", [True], [0.5])
    run = load_run(write_run(tmp_path / "r", rows))
    pairs = length_pairs(run, 0).set_index("prompt_id")
    assert pairs["predicted"].to_dict() == {"a": 68, "d": 64, "e": 64}
    assert pairs["length"].to_dict() == {"a": 65, "d": 50, "e": 80}
    figure = length_calibration([run])
    assert figure is not None
    first = figure.axes[0]
    assert "MAE 11.0 [" in first.texts[0].get_text()
    assert len(first.collections[0].get_offsets()) == 3 and first.get_xlim()[1] > 80
    row = score_table([run]).iloc[0]
    assert row["length MAE (tokens)"].value == pytest.approx((3 + 14 + 16) / 3)
    # by sample the length scores of `prompt_rows` are 0, 1, 0
    assert row["length score"].value == pytest.approx((1 / 3 + 0 + 0 + 0 + 0.5) / 5)
    assert row["notion score"].value == 0.5 and row["notion score"].low == 0.5
    scores = [row[name].value for name in ("difficulty score", "length score", "notion score")]
    assert row["meta reward"].value == pytest.approx(sum(scores) / 3)
    assert row["meta reward"].low < row["meta reward"].value < row["meta reward"].high


def test_meta_reward_has_the_weights_of_its_run(tmp_path: Path) -> None:
    rows = prompt_rows("val", 0, "a", [True, False], [0.5, 1.0, 0.5])
    rows += prompt_rows("train", 1, "t", [True], [0.5])
    run = load_run(write_run(tmp_path / "r", rows))
    weights = {"difficulty": {"weight": 0.0}, "length": {"weight": 3.0}, "notion": {"weight": 1.0}}
    run.config["algorithm"]["meta"] = {"rewards": weights}
    assert score_table([run])["meta reward"][0].value == pytest.approx(0.75 / 3 + 0.25 / 2)
    weights["length"]["weight"] = 0.0
    assert score_table([run])["meta reward"][0].value == pytest.approx(0.5)


def test_quartiles_of_length_errors_have_intervals(tmp_path: Path) -> None:
    rows = prompt_rows("train", 1, "t", [True], [0.5])
    for i in range(9):
        rows += prompt_rows("val", 0, f"v{i}", [True], [0.5] * 3, tokens=60 + 4 * i)
    row = length_table([load_run(write_run(tmp_path / "r", rows))]).iloc[0]
    assert [row[name].value for name in ("25 %", "median error", "75 %")] == [0, 2, 4]
    assert all(row[name].low < row[name].high for name in ("25 %", "median error", "75 %"))


def test_held_out_gate_by_hand(tmp_path: Path) -> None:
    rows = prompt_rows("train", 1, "t", [True], [1.0], would_skip=True)
    for i, (right, skip) in enumerate([(4, True), (0, True), (2, True), (4, False), (1, False)]):
        correct = [j < right for j in range(4)]
        rows += prompt_rows("val", 1, f"v{i}", correct, [1.0], would_skip=skip)
    row = held_out_gate_table([load_run(write_run(tmp_path / "r", rows))]).iloc[0]
    assert (row["gate precision"].hits, row["gate precision"].n) == (2, 3)
    assert (row["gate recall"].hits, row["gate recall"].n) == (2, 3)
    assert row["gate F1"].value == pytest.approx(2 / 3)
    assert (row["zero-variance share"].hits, row["would-skip share"].hits) == (3, 3)


def _with_texts(split: str, step: int, name: str, texts: dict[str, bool]) -> Rows:
    rows = prompt_rows(split, step, name, list(texts.values()), [0.5])
    for row, text in zip(rows, texts, strict=False):
        row["text"] = text
    return rows


def test_notions_by_hand(tmp_path: Path) -> None:
    rows = prompt_rows("train", 1, "t", [True], [0.5])
    start = {"a carrying case": True, "nothing": True, "carry": False}
    end = {"a CARRY": True, "(carries)": True, "no": False}
    for i in range(2):
        rows += _with_texts("val", 0, f"v{i}", start) + _with_texts("val", 2, f"v{i}", end)
    run = load_run(write_run(tmp_path / "r", rows))
    table = notion_changes(run).set_index(["verdict", "notion"])
    assert table.loc[("correct", "carry")].tolist() == [0.0, 1.0, 1.0]  # whole words alone
    assert table.loc[("wrong", "carry")].tolist() == [1.0, 0.0, -1.0]
    assert [side.change(0).value for side in mentions(run)] == pytest.approx([1.0, -1.0])
    assert notion_table([run])["start"].map(str).tolist() == [
        "0.000 [0.000, 0.000]", "1.000 [1.000, 1.000]",
    ]  # fmt: skip
    assert notion_table([run])["change"].map(str).tolist() == [
        "1.000 [1.000, 1.000]", "-1.000 [-1.000, -1.000]",
    ]  # fmt: skip


def test_a_notion_is_looked_for_in_every_seed(tmp_path: Path) -> None:
    for seed in range(4):
        start = {"plain" if seed else "none": True, "no": False}
        end = {"carry" if seed else "none": True, **({"no": False} if seed < 3 else {})}
        rows = prompt_rows("train", 1, "t", [True], [0.5])
        rows += _with_texts("val", 0, "v", start) + _with_texts("val", 2, "v", end)
        for row in rows:
            if row["kind"] == "meta":  # seed 1 alone predicts the other notion
                row["predicted_notions"] = ["carry"] if seed != 1 else ["plain"]
        write_run(tmp_path / str(seed), rows, method="masa", seed=seed)
    (method,) = load_sweep(tmp_path)
    table = notion_means(method, 3).set_index(["solutions", "notion"])
    for notion, sign in (("carry", 1), ("plain", -1)):
        row = table.loc[("correct", notion)]
        assert row["change"].value == pytest.approx(sign * 0.75)
        assert (row["seeds"], row["seeds that mention it"]) == (4, "3 of 4")
        assert row["start"].low >= 0 and row["end"].high <= 1
    assert "wrong" not in table.index.get_level_values("solutions")


def test_a_notion_that_looks_like_a_formula_is_drawn(tmp_path: Path) -> None:
    notion = r"$\pmod{9}$"
    rows = prompt_rows("train", 1, "t", [True], [0.5])
    rows += _with_texts("val", 0, "v", {"plain": True})
    rows += _with_texts("val", 2, "v", {notion: True})
    for row in rows:
        if row["kind"] == "meta":
            row["predicted_notions"] = [notion]
    write_run(tmp_path / "0", rows, method="masa", seed=0)
    figure = notions_figure(load_sweep(tmp_path))
    assert figure is not None
    figure.canvas.draw()


def test_flops_by_hand() -> None:
    meter = CostMeter()
    one = group()
    read = len(one.meta_prompt_ids) * bool(one.meta) + len(one.solution_prompt_ids)
    sampled = sum(len(c.token_ids) for c in (*one.solutions, *one.meta))
    assert meter.add([one], trained=50) == sampled
    size = ModelSize(parameters=10, trained=10)
    assert meter.flops(size, reference=False) == 20 * (read + sampled) + 60 * 50
    assert meter.flops(size, reference=True) == 20 * (read + sampled) + 80 * 50
    assert meter.flops(ModelSize(10, trained=1), False) == 20 * (read + sampled) + 42 * 50
    assert meter.metrics(size, False)["cost/tokens_total"] == sampled


@pytest.mark.parametrize("tied", [True, False])
def test_a_lookup_computes_nothing_unless_it_is_the_head(tied: bool) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen3", vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, intermediate_size=6, tie_word_embeddings=tied,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    layers = sum(p.numel() for p in model.get_decoder().layers.parameters())
    size = model_size(model)
    assert size.parameters == size.trained == layers + 8 + 11 * 8  # final norm and head
    assert model_size(torch.nn.Linear(3, 2).requires_grad_(False)) == ModelSize(8, 0)


def test_runs_may_differ_in_their_rewards(tmp_path: Path) -> None:
    """Also in such as are called like something else of the analysis."""
    extra = ("step", "reward", "gain", "R2")
    runs = []
    for seed, names in enumerate([(), extra]):
        rows: Rows = []
        for step, right in ((0, 1), (5, 3)):
            for i in range(6):
                correct = [j < right - (i == 0) * step // 5 for j in range(4)]
                rows += prompt_rows("val", step, f"v{i}", correct, [0.5, i / 5])
        rows += prompt_rows("train", 1, "t", [True, False], [0.5])
        for row in rows:
            if row["meta_rewards"] is not None:
                row["meta_rewards"] += [(name, -2.0) for name in names]
        runs.append(load_run(write_run(tmp_path / str(seed), rows, method=f"m{seed}")))
    assert [run.rewards[3:] for run in runs] == [(), extra]
    table = score_table(runs).set_index("run")
    shares = gain_table(runs).set_index("run")
    for name in extra:
        assert table.loc["m1", f"{name} score"].value == -2
        assert np.isnan(table.loc["m0", f"{name} score"])
        assert shares.loc["m1", f"R2 share, {name} score"].value == pytest.approx(0, abs=1e-9)
    mean = sum(table.loc["m1", f"{n} score"].value for n in ("difficulty", "length", "notion"))
    assert table.loc["m1", "meta reward"].value == pytest.approx((mean - 8) / 7)
    write_report([run.path for run in runs], tmp_path / "report")
    report = (tmp_path / "report" / "report.md").read_text()
    assert "gain score" in report and "R2 share, step score" in report

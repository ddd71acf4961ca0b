"""masa.analysis.gains against a brute force over orders and the axioms of Shapley values."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import Rows, prompt_rows, write_run

from masa.analysis.gains import gain_table, gains, shapley, shapley_r2
from masa.analysis.load import load_run


def r2(x: np.ndarray, y: np.ndarray) -> float:
    design = np.column_stack([np.ones(len(y)), x])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return 1 - residual.var() / y.var()


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)) @ rng.normal(size=(4, 4))
    return x, x @ [0.5, -1.0, 0.0, 0.2] + rng.normal(size=80)


def test_shapley_is_the_mean_over_all_orders(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    shares = np.zeros(4)
    for order in permutations(range(4)):
        for i, feature in enumerate(order):
            before, after = list(order[:i]), list(order[: i + 1])
            shares[feature] += (r2(x[:, after], y) - r2(x[:, before], y)) / 24
    assert shapley_r2(x, y) == pytest.approx(shares, abs=1e-9)


def test_efficiency_symmetry_and_null(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    assert shapley_r2(x, y).sum() == pytest.approx(r2(x, y))
    twins = shapley_r2(np.column_stack([x[:, 0], x[:, 0], x[:, 1]]), y)
    assert twins[0] == pytest.approx(twins[1]) and twins.sum() == pytest.approx(r2(x[:, :2], y))
    constant = shapley_r2(np.column_stack([x[:, 0], np.full(len(y), 3.0)]), y)
    assert constant == pytest.approx([r2(x[:, :1], y), 0.0])
    assert np.isnan(shapley_r2(x, np.ones(len(y)))).all()


def test_shares_do_not_depend_on_units(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = data
    assert shapley_r2(x * [1, 1e-4, 1e4, 7] + 5, 3 * y - 2) == pytest.approx(shapley_r2(x, y))


def _rows() -> Rows:
    rows: Rows = []
    for step, right in ((0, 1), (5, 2), (10, 4)):
        for i in range(6):
            correct = [j < right - (i == 0 and step == 5) for j in range(4)]
            rows += prompt_rows("val", step, f"v{i}", correct, [0.5, 1.0])
    return rows + prompt_rows("train", 1, "t", [True, False], [0.5])


def test_gains_pair_prompts_and_validations(tmp_path: Path) -> None:
    table = gains(load_run(write_run(tmp_path / "r", _rows()))).set_index(["step", "prompt_id"])
    assert len(table) == 12
    assert table.loc[(5, "v0"), "gain"] == 0.0 and table.loc[(5, "v1"), "gain"] == 0.25
    assert table.loc[10, "gain"].tolist() == [0.75] * 6
    # scores of predictions 0.5 and 1 where the pass rate is 1/4, then 1
    start, end = (0.01**0.25 + 0.01**0.75) / 2, (0.01**0.5 + 1) / 2
    assert table.loc[(10, "v3"), "r_difficulty"] == pytest.approx(end - start)
    assert table.loc[(10, "v3"), "reward"] == pytest.approx((end - start) / 3)
    assert (table[["r_length", "r_notion"]] == 0).all(axis=None)


def test_gains_in_meta_reward_have_the_weights_of_the_run(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", _rows()))
    weights = {"difficulty": {"weight": 1.0}, "length": {"weight": 0.0}, "notion": {"weight": 0.0}}
    run.config["algorithm"]["meta"] = {"rewards": weights}
    table = gains(run)
    assert table["reward"].abs().max() > 0
    assert table["reward"].tolist() == table["r_difficulty"].tolist()


def test_bootstrap_of_shares_holds_the_point(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", _rows()))
    shares = shapley(run)
    assert set(shares) == {"difficulty score", "length score", "notion score", "step", "R2"}
    parts = [share.value for name, share in shares.items() if name != "R2"]
    assert shares["R2"].value == pytest.approx(sum(parts))
    assert shares["R2"].value > 0.9 and shares["length score"].value == pytest.approx(0)
    assert shares["R2"].low - 1e-9 <= shares["R2"].value <= shares["R2"].high + 1e-9
    row = gain_table([run]).iloc[0]
    # one pair gains nothing in either; the reward rises alike in the other eleven
    expected = np.corrcoef([0.0] + [0.25] * 5 + [0.75] * 6, [0] + [1] * 11)[0, 1]
    assert row["pairs"] == 12
    assert row["corr(gain, meta reward)"].value == pytest.approx(expected)


def test_a_run_without_predictions_has_no_gains(tmp_path: Path) -> None:
    rows = [row for row in _rows() if row["kind"] == "solution"]
    run = load_run(write_run(tmp_path / "r", rows))
    assert gains(run).empty and gain_table([run]).empty
    assert np.isnan(shapley(run)["R2"].value)

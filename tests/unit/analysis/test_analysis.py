"""masa.analysis and masa.report against closed forms, scipy and run directories."""

from __future__ import annotations

import re
import shutil
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from synthetic_run import Rows, prompt_rows, simulated_run, write_run

from masa.analysis import control, tables
from masa.analysis.control import control_table, held_out_gate_table
from masa.analysis.load import RunError, find_runs, load_run, run_labels
from masa.analysis.run_figures import overview
from masa.report import main, write_report
from masa.statistics import (
    Estimate,
)

YES, NO = [True] * 4, [False] * 4
MIXED = [True, False, True, False]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """grpo (shorter), masa and masa_efficient, simulated."""
    root = tmp_path_factory.mktemp("runs")
    small = {"held_out": 36, "prompts": 12, "steps": 12, "validate_every": 4}
    simulated_run(root / "a", method="grpo", start=None, meta=False, **small | {"steps": 8})
    simulated_run(root / "b", method="masa", start=None, **small)
    simulated_run(root / "c", method="masa_efficient", start=5, **small)
    return root


def test_no_share_of_one_run_stands_without_its_interval(tmp_path: Path) -> None:
    run = load_run(simulated_run(tmp_path / "r", steps=12, start=6, held_out=24))
    picture = overview([run])
    assert picture is not None
    legend = picture.axes[1].get_legend_handles_labels()[1]
    assert len(legend) == 2 and all(text.count("[") == 2 for text in legend)
    spent = run.rollouts[run.rollouts["split"] == "train"].groupby("kind")["tokens"].sum()
    share = tables.headline([run])["meta share of tokens"][0]
    assert share.value == pytest.approx(spent["meta"] / spent.sum())
    assert share.low < share.value < share.high
    gates = [*control_table([run]).iloc, *held_out_gate_table([run]).iloc]
    assert any(row["gate precision"].hits for row in gates)
    for row in gates:
        assert row["zero-variance share"].low < row["zero-variance share"].value
        p, r, f1 = row["gate precision"], row["gate recall"], row["gate F1"]
        if row["gate precision"].hits:
            assert f1.value == pytest.approx(2 / (1 / p.value + 1 / r.value))
            assert f1.low < f1.value < f1.high
        else:
            assert isnan(f1.value)


# ---- audits made by hand ----


def _evidence_rows() -> Rows:
    """Shadow mode: 4 prompts; active: 6 audited, 3 skipped, 2 rolled out without audit."""
    rows: Rows = prompt_rows("val", 0, "v0", MIXED, [0.5]) + prompt_rows("val", 0, "v1", NO, [0.0])
    for name, verdicts, skip in (
        ("s0", YES, True), ("s1", NO, False), ("s2", MIXED, True), ("s3", MIXED, False),
    ):  # fmt: skip
        rows += prompt_rows("train", 1, name, verdicts, [1.0, None], would_skip=skip,
                            cutoff_tokens=100, tokens=[90, 100, 101, 180])  # fmt: skip
    on = {"enforced": True, "audited": True, "cutoff_tokens": 50}
    for name, verdicts, skip in (
        ("a0", YES, True), ("a1", NO, True), ("a2", YES, True), ("a3", MIXED, True),
        ("a4", NO, False), ("a5", YES, False),
    ):  # fmt: skip
        rows += prompt_rows("train", 2, name, verdicts, [1.0], would_skip=skip, **on,
                            tokens=[40, 50, 51, 60])  # fmt: skip
    for i in range(3):
        rows += prompt_rows(
            "train", 2, f"g{i}", (), [1.0], would_skip=True, enforced=True, skipped=True
        )
    for i in range(2):  # not audited: no evidence
        rows += prompt_rows(
            "train", 2, f"n{i}", YES, [0.5], enforced=True, cutoff_tokens=10, tokens=10
        )
    return rows


def test_audit_table_counts_only_evidence(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", _evidence_rows()))
    shadow, active = (row for _, row in control_table([run]).iterrows())

    def counts(e: Estimate) -> tuple[int | None, int | None]:
        return e.hits, e.n

    assert (shadow["mode"], active["mode"]) == ("shadow", "active")
    assert counts(shadow["gate precision"]) == (1, 2)
    assert counts(shadow["gate recall"]) == (1, 2)
    assert counts(active["gate precision"]) == (3, 4)
    assert counts(active["gate recall"]) == (3, 5)
    assert active["gate F1"].value == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert counts(active["would-skip share"]) == (7, 11)
    assert counts(active["zero-variance share"]) == (5, 6)
    # shadow, where the gate skips nobody, cutoff 100: s0 is right at 90, 100, 101, 180,
    # s2 and s3 at 90 and 101, s1 never
    assert counts(shadow["correct lost to cutoff"]) == (4, 8)
    # audited, would not be skipped: a5 is right at 40, 50, 51, 60; cutoff 50
    assert counts(active["correct lost to cutoff"]) == (2, 4)
    assert active["solution tokens per prompt, spent"].value == pytest.approx(
        (6 * 201 + 2 * 40) / 11
    )
    assert active["solution tokens per prompt, without control"].value == pytest.approx(201)
    assert control.active_from(run) == 2
    assert run.prompts.set_index("prompt_id").loc["s0", "predicted"] == 1.0  # unparsed left out


def test_gate_and_cutoff_have_phases_of_their_own(tmp_path: Path) -> None:
    cutting = {
        "gate_active": False,
        "cutoff_active": True,
        "tokens": [40, 50, 51, 60],
        "cutoff_tokens": 50,
    }
    rows: Rows = prompt_rows("val", 0, "v", MIXED, [0.5])
    rows += prompt_rows("train", 1, "a", YES, [1.0], would_skip=True, audited=True, **cutting)
    rows += prompt_rows("train", 1, "b", YES, [1.0], would_skip=True, **cutting)
    run = load_run(write_run(tmp_path / "run", rows))
    shadow, active = (row for _, row in control_table([run]).iterrows())
    assert (shadow["gate precision"].hits, shadow["gate precision"].n) == (1, 1)
    assert (shadow["would-skip share"].hits, shadow["would-skip share"].n) == (2, 2)
    assert shadow["correct lost to cutoff"].n == 0 == active["would-skip share"].n
    # the gate is not active, so the audited prompt is evidence about the cutoff
    assert (active["correct lost to cutoff"].hits, active["correct lost to cutoff"].n) == (2, 4)
    assert np.isnan(tables.headline([run]).iloc[0]["skipped share, gate active"].value)


def test_a_gate_by_history_is_audited_without_predictions(tmp_path: Path) -> None:
    rows: Rows = prompt_rows("val", 1, "v", MIXED, [0.5])
    rows += prompt_rows("train", 1, "a", YES, would_skip=True, audited=True, gate_active=True)
    rows += prompt_rows("train", 1, "b", NO, audited=True, gate_active=True)
    path = write_run(tmp_path / "run", rows, method="greso")
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["algorithm"]["gate"] = {"enabled": True, "_target_": "masa.algorithm.gates.HistoryGate"}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    run = load_run(path)
    row = control_table([run]).iloc[0]
    assert (row["gate recall"].hits, row["gate recall"].n) == (1, 2)
    assert np.isnan(row["correct lost to cutoff"].value)
    assert held_out_gate_table([run]).empty  # no held-out prompt has a past


def test_headline_shares(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", _evidence_rows(), seconds_per_step=2.5))
    row = tables.headline([run]).iloc[0]
    solution, meta = 4 * 471 + 6 * 201 + 2 * 40, 15 * (8 + 6 + 3 + 2)
    assert row["tokens"] == solution + meta
    assert row["seconds"] == 5.0
    assert row["meta share of tokens"].value == pytest.approx(meta / (solution + meta))
    assert (row["skipped share, gate active"].hits, row["rollouts"]) == (3, 2)
    assert row["accuracy, start"].value == pytest.approx(0.25)
    assert row["pass-rate MAE, end"].value == 0.0


# ---- curves made by hand ----


def _curve(path: Path, rates: dict[int, int], *, method: str, tokens: int = 100) -> Path:
    """Held-out accuracy `rates[step]` / 4, one training prompt of 4 x `tokens` tokens per step."""
    rows: Rows = []
    for step in range(max(rates) + 1):
        if step:
            rows += prompt_rows("train", step, f"t{step}", MIXED, tokens=tokens)
        for i in range(12) if step in rates else ():
            rows += prompt_rows("val", step, f"v{i}", [j < rates[step] for j in range(4)],
                                [0.5], level=1 + i % 2)  # fmt: skip
    return write_run(path, rows, method=method)


def test_time_to_target(tmp_path: Path) -> None:
    fast = _curve(tmp_path / "fast", {0: 1, 10: 3, 20: 4}, method="masa", tokens=50)
    grpo = _curve(tmp_path / "grpo", {0: 1, 10: 1, 20: 2}, method="grpo")
    slow = _curve(tmp_path / "slow", {0: 0, 10: 1}, method="masa_v1")
    table = tables.to_target([load_run(p) for p in (fast, grpo, slow)]).set_index("run")
    assert table["target accuracy"].tolist() == [0.5] * 3  # grpo's last, though listed second
    assert table.loc["masa", "rollouts"] == pytest.approx(5)
    assert table.loc["masa", "tokens"] == pytest.approx(5 * 200)
    assert table.loc["masa", "seconds"] == pytest.approx(10)
    assert table.loc["grpo", "tokens"] == pytest.approx(8000)
    assert table.loc["masa_v1", "tokens"] == "not reached (best 0.250 [0.250, 0.250])"
    # a ratio of two runs would be a claim about methods without an interval
    assert not [name for name in table if "/" in name]


def test_crossing() -> None:
    x, y = np.array([0.0, 10, 20]), np.array([0.2, 0.6, 0.4])
    assert tables.crossing(x, y, 0.4) == pytest.approx(5)
    assert tables.crossing(x, y, 0.1) == 0
    assert isnan(tables.crossing(x, y, 0.7))


def test_differences_pair_prompts_and_name_the_steps(tmp_path: Path) -> None:
    grpo = _curve(tmp_path / "grpo", {0: 1, 10: 2}, method="grpo")
    masa = _curve(tmp_path / "masa", {0: 1, 10: 2, 20: 3}, method="masa")
    other = simulated_run(tmp_path / "other", steps=4, held_out=6, validate_every=4)
    table = tables.differences([load_run(p) for p in (grpo, masa, other)])
    assert table["rollouts"].tolist() == ["20 / 10", "10 / 10", "4 / 10"]
    assert [e.value for e in table["difference"][:2]] == [0.25, 0.0]
    assert table["p (sign flip)"][0] == pytest.approx(2 / 2**12)
    assert table["p (Holm)"][0] == pytest.approx(4 / 2**12)
    assert table["prompts"][2] == "other held-out prompts" and isnan(table["p (Holm)"][2])


def test_per_level(tmp_path: Path) -> None:
    table = tables.per_level([load_run(_curve(tmp_path / "r", {0: 1, 5: 3}, method="masa"))])
    assert table["level"].tolist() == [1, 2] and table["prompts"].tolist() == [6, 6]
    assert [e.value for e in table["change"]] == [0.5, 0.5]


def test_worst_predictions(tmp_path: Path) -> None:
    rows = prompt_rows("val", 3, "good", MIXED, [0.5, 0.5]) + prompt_rows("train", 3, "t", YES)
    rows += prompt_rows("val", 3, "bad", [False, False, False, True], [1.0, 0.25, None], level=5)
    miss = tables.worst_predictions(load_run(write_run(tmp_path / "r", rows)))[0]
    assert (miss.prompt_id, miss.level, miss.predicted, miss.actual) == ("bad", 5, 0.625, 0.25)
    assert "pass rate 1.0" in miss.meta and "```0```" in miss.solution  # a wrong solution


def test_validations_carry_cost_and_survive_gaps(tmp_path: Path) -> None:
    run = load_run(_curve(tmp_path / "r", {0: 1, 10: 2}, method="masa"))
    assert run.validations["tokens"].tolist() == [0, 4000]
    assert run.validations["seconds"].tolist() == [0, 20]
    table = pd.read_csv(run.path / "metrics.csv")
    table.loc[table["step"] == 10, "cost/tokens_total"] = None  # a validation row of its own
    table.to_csv(run.path / "metrics.csv", index=False)
    assert load_run(run.path).validations["tokens"].tolist() == [0, 3600]
    (run.path / "timings.csv").unlink()
    assert load_run(run.path).validations["seconds"].isna().all()


def _break(path: Path, how: str) -> None:
    file = path / how.split(":")[0]
    if how.endswith(":cut"):
        file.write_bytes(file.read_bytes()[:-40])
    elif how.endswith(":empty"):
        file.write_text("")
    else:
        file.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("config.yaml", "config.yaml: missing"),
        ("config.yaml:empty", "config.yaml: empty or half-written"),
        ("metrics.csv", "metrics.csv: missing"),
        ("metrics.csv:empty", "metrics.csv: holds no rows"),
        ("rollouts/val-000000.parquet:cut", "val-000000.parquet: not readable"),
        ("rollouts/val-000000.parquet:empty", "val-000000.parquet: not readable"),
    ],
)
def test_broken_runs_are_refused_in_one_line(tmp_path: Path, how: str, message: str) -> None:
    path = _curve(tmp_path / "r", {0: 1, 2: 2}, method="masa")
    _break(path, how)
    with pytest.raises(RunError, match=re.escape(message)) as error:
        load_run(path)
    assert "\n" not in str(error.value)


def test_half_a_line_and_missing_things(tmp_path: Path) -> None:
    path = _curve(tmp_path / "r", {0: 1, 2: 2}, method="masa")
    with (path / "metrics.csv").open("a") as file:
        file.write("3")
    with pytest.raises(RunError, match="half-written"):
        load_run(path)
    (tmp_path / "nothing").mkdir()
    for missing, message in (("none", "no such directory"), ("nothing", "is empty")):
        with pytest.raises(RunError, match=message):
            load_run(tmp_path / missing)
    file = path / "rollouts" / "val-000000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["would_skip"]), file)
    with pytest.raises(RunError, match="lacks the columns would_skip"):
        load_run(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", b"name: \xff\xfe", "config.yaml: not UTF-8 text"),
        ("metrics.csv", b"step,reward\n0,\xff\n", "metrics.csv: not UTF-8 text"),
        ("metrics.csv", b"step,reward\nfirst,0\n", "metrics.csv: a 'step' is no number"),
        ("metrics.csv", b"step,reward\n,0\n", "metrics.csv: a 'step' is no number"),
        ("timings.csv", b"step,timing_s/step\nfirst,0\n", "timings.csv: a 'step' is no number"),
    ],
)
def test_files_of_something_else_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str
) -> None:
    path = _curve(tmp_path / "r", {0: 1, 2: 2}, method="masa")
    (path / name).write_bytes(content)
    assert main([str(path)]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_a_run_of_fine_tuning_is_in_no_report_of_its_folder(three: Path, tmp_path: Path) -> None:
    shutil.copytree(three, tmp_path / "all")
    tuned = tmp_path / "all" / "sft"
    tuned.mkdir()
    (tuned / "metrics.csv").write_text("step,loss\n1,0.5\n")
    (tuned / "config.yaml").write_text("algorithm:\n  name: sft\nsft:\n  steps: 1\n")
    assert [path.name for path in find_runs([tmp_path / "all"])] == ["a", "b", "c"]
    assert find_runs([tuned]) == [tuned]
    with pytest.raises(RunError, match="a run of masa-sft"):
        load_run(tuned)
    with pytest.raises(RunError, match="holds no run"):
        find_runs([shutil.copytree(tuned, tmp_path / "alone" / "sft").parent])


def test_find_runs_expands_once(three: Path) -> None:
    names = [p.name for p in find_runs([three / "c", three, three / "a"])]
    assert names == ["c", "a", "b"]
    with pytest.raises(RunError, match="holds no run"):
        find_runs([three / "a" / "rollouts"])


def test_labels_are_unique(three: Path) -> None:
    run = load_run(three / "b")
    again = load_run(three / "b")
    again.seed = 1
    assert run_labels([run, again, load_run(three / "a")]) == [
        "masa (seed 0)", "masa (seed 1)", "grpo",
    ]  # fmt: skip
    assert len(set(run_labels([run, run, again]))) == 3


# ---- the report ----


def _links(report: Path) -> list[str]:
    return re.findall(r"!\[[^\]]*\]\(([^)]+)\)", report.read_text())


def test_comparison_from_the_command_line(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(three), "--out", str(tmp_path)]) == 0
    report, printed = tmp_path / "report.md", capsys.readouterr()
    text = report.read_text()
    assert str(report) in printed.out and "accuracy, end" in printed.out
    names = ["overview", "accuracy", "levels", "pass_rates", "calibration"]
    names += ["length_calibration", "alignment", "gate", "control", "lengths", "gains", "shapley"]
    assert _links(report) == [f"figures/{name}.png" for name in names]
    assert all((tmp_path / link).stat().st_size > 5000 for link in _links(report))
    assert "no claim about a method** (one seed here: grpo, masa, masa_efficient)" in text
    assert "## Against grpo" in text and "## Worst predictions (masa_efficient" in text
    assert "nan" not in text.lower()
    widths = {line.count("|") for line in text.split("## Results")[1].split("\n\n")[1].split("\n")}
    assert widths == {5}


def test_one_run_reports_into_its_own_directory(tmp_path: Path) -> None:
    path = simulated_run(tmp_path / "r", steps=4, start=2, held_out=12, validate_every=2)
    report = write_report([path], path)
    assert report == path / "report.md" and "## Against" not in report.read_text()
    assert (path / "figures" / "overview.png").is_file()


def test_runs_without_meta_or_without_validation(tmp_path: Path) -> None:
    plain: Rows = []
    for step in range(3):
        plain += prompt_rows("train", step, f"t{step}", MIXED) if step else []
        plain += prompt_rows("val", step, "v0", MIXED) + prompt_rows("val", step, "v1", YES)
    grpo = write_run(tmp_path / "grpo", plain, method="grpo")
    blind = write_run(tmp_path / "blind", prompt_rows("train", 1, "t", YES, [1.0]), method="masa")
    for runs in ([grpo], [blind], [grpo, blind]):
        report = write_report(runs, tmp_path / "out")
        assert "nan" not in report.read_text().lower()
        assert all((tmp_path / "out" / link).is_file() for link in _links(report))
    with pytest.raises(RunError, match="no run"):
        write_report([], tmp_path)


def test_errors_are_one_line_and_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "no such directory" in captured.err

"""The three answers on a report's first screen, on runs whose outcome is known."""

import pytest
from synthetic_run import prompt_rows, simulated_run, write_run

from masa.analysis.compare_methods import group_runs, single_runs
from masa.analysis.load import load_run
from masa.analysis.summary import accuracy_change, prediction_share, saved_share, summary


def chosen_run(path, *, end=(True, True, False, True), predicted=(1.0, 1.0), **decisions):
    """Four held-out prompts before and after, and four training prompts of one rollout."""
    rows = []
    for step, correct in ((0, (False, False, False, True)), (1, end)):
        for i in range(4):
            rows += prompt_rows("val", step, f"v{i}", correct, predicted)
    for i in range(4):
        rows += prompt_rows(
            "train", 1, f"t{i}", (True,) * 4, predicted, tokens=50, meta_tokens=10, enforced=True,
            would_skip=i > 0, skipped=i > 1, audited=i == 1, **decisions,
        )  # fmt: skip
    return load_run(write_run(path, rows))


def test_numbers_of_a_run(tmp_path):
    run = chosen_run(tmp_path / "run")
    assert accuracy_change(run).value == pytest.approx(0.5)
    # two of four prompts of 200 tokens were skipped; eight predictions of 10 tokens
    assert saved_share(run).value == pytest.approx(0.5)
    assert prediction_share(run).value == pytest.approx(80 / 800)
    text = summary(single_runs([run]))
    assert "from 0.250 to 0.750 in 1 rollouts, a change of +0.500" in text
    assert "saved 50 % of the solution tokens" in text
    assert "predictions cost 10 % of these, which makes 40 % less per prompt than" in text


def test_learning_and_aligned_predictions_are_told_from_none(tmp_path):
    good = load_run(simulated_run(tmp_path / "good"))
    still = load_run(simulated_run(tmp_path / "still", gain=0.0, start=None))
    blind = load_run(simulated_run(tmp_path / "blind", method="grpo", meta=False, start=None))
    answers = {run.name: summary(single_runs([run])) for run in (good, still, blind)}
    learned = {name: text.split("\n- ")[1] for name, text in answers.items()}
    true = {name: text.split("\n- ")[2] for name, text in answers.items()}
    saved = {name: text.split("\n- ")[3] for name, text in answers.items()}
    assert ": yes." in learned["good"] and ": not shown." in learned["still"]
    assert ": yes." in true["good"] and ": yes." not in true["blind"]
    assert "they skipped" in saved["good"]
    assert "nothing, as neither gate nor cutoff was active" in saved["still"]


def test_a_run_without_predictions_or_validation_says_so(tmp_path):
    rows = prompt_rows("train", 1, "a", (True, False))
    run = load_run(write_run(tmp_path / "run", rows))
    text = summary(single_runs([run]))
    assert "not known, as nothing was validated" in text and "it made none" in text


def test_one_validation_shows_no_change(tmp_path):
    rows = prompt_rows("val", 0, "v", (True, False)) + prompt_rows("train", 1, "a", (True, False))
    text = summary(single_runs([load_run(write_run(tmp_path / "run", rows))]))
    assert "not known, as it was validated once" in text


def test_rollouts_after_the_last_validation_are_not_counted(tmp_path):
    run = chosen_run(tmp_path / "run")
    rows = [row for step in (0, 1) for row in prompt_rows("val", step, "v", (True, False))]
    rows += [row for step in (1, 2, 3) for row in prompt_rows("train", step, "a", (True, False))]
    stopped = load_run(write_run(tmp_path / "stopped", rows))
    assert "in 1 rollouts" in summary(single_runs([run]))
    assert "in 1 rollouts" in summary(single_runs([stopped])) and stopped.last_step == 3


def test_seeds_in_which_nothing_acted_are_named(tmp_path):
    acted = chosen_run(tmp_path / "a")
    rows = prompt_rows("val", 0, "v", (True,)) + prompt_rows("train", 1, "t", (True, False))
    idle = load_run(write_run(tmp_path / "b", rows, seed=1))
    text = summary(group_runs([acted, idle]))
    assert "while active (1 of 2 seeds; in the others neither was) they skipped" in text


def test_where_the_cutoff_alone_acted_nothing_is_said_of_the_gate(tmp_path):
    rows = prompt_rows("val", 0, "v", (True,)) + prompt_rows("val", 1, "v", (True,))
    rows += prompt_rows(
        "train", 1, "t", (True, False), (0.5,), gate_active=False, cutoff_active=True
    )
    text = summary(single_runs([load_run(write_run(tmp_path / "run", rows))]))
    assert "while active they saved" in text and "skipped" not in text.partition("while")[2]


def test_several_seeds_have_intervals_over_seeds(tmp_path):
    runs = [load_run(simulated_run(tmp_path / f"s{seed}", seed=seed)) for seed in range(3)]
    text = summary(group_runs(runs))
    assert text.count("\n- masa_efficient:") == 3 and "yes." in text
    changes = [accuracy_change(run).value for run in runs]
    assert f"a change of {sum(changes) / 3:+.3f} [" in text

"""A policy that is shown its recent outcomes: the same on one rank and on two, and after a stop."""

import pytest
import runs

from masa.tasks.arithmetic import ArithmeticTask

METIS = [
    "engine=hf", "algorithm=metis", "algorithm.control.start_step=0", "algorithm.meta.recent=3",
    "algorithm.gate.threshold=1", "algorithm.control.audit_fraction=0.3", "trainer.val_every=4",
    "trainer.checkpoint_every=1", "trainer.record_tokens=true",
]  # fmt: skip
COLUMNS = ["step", "prompt_id", "kind", "sample", "text", "kept", "skipped", "prompt_tokens"]


@pytest.mark.slow
def test_the_same_on_two_ranks_and_after_a_stop(cache, tmp_path):
    one = tmp_path / "one"
    runs.masa_train(one, cache, *METIS)
    rows = runs.rollouts(one)
    assert rows["skipped"].any() and not rows["skipped"].all()
    # shown is what came of the newest prompts that were rolled out before
    tokenizer = ArithmeticTask().tokenizer()
    solved = rows[rows["kind"] == "solution"]
    for step, metas in rows[rows["kind"] == "meta"].groupby("step"):
        before = solved[solved["step"] < step].groupby(["step", "problem"], sort=False)["correct"]
        newest = list((before.nunique() == 2).items())[-3:]
        shown = "".join(f'{problem}, "mixed": {100 * mixed}' for (_, problem), mixed in newest)
        for text in map(tokenizer.decode, metas["prompt_ids"]):
            assert text.startswith(f"{shown}Predict how solving")

    runs.same_after_a_stop_and_on_two_ranks(one, cache, METIS, COLUMNS)

"""Tables of a rollout on the console and in W&B, every n rollouts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders import completion, group, plan, prompt

from masa.config import TrainerConfig
from masa.errors import ConfigError
from masa.rollout import callback
from masa.rollout.callback import RolloutCallback
from masa.tracking.console_tables import PROMPTS, rollout_tables
from masa.tracking.loggers import WandbLogger
from masa.types import MetaPrediction

PREDICTIONS = [MetaPrediction(0.25, 40, ("sum",)), MetaPrediction(0.75, None, error="length")]


def named(name, **fields):
    made = group(predictions=PREDICTIONS, **fields)
    return replace(made, prompt=replace(prompt(), id=name, problem=f"line one of {name}\nline two"))


def test_a_line_per_prompt_with_verdict_and_truth():
    skipped = named("gone", correct=(), decided=plan(would_skip=True, gate_active=True))
    text = rollout_tables([named("mixed"), skipped], 7)
    assert text.startswith("rollout 7, 2 of 2 prompts\n")
    completions, predictions = text.split("\n\n")[1:]
    assert "line one of mixed line two" in completions and "gone" not in completions
    assert "| right " in completions and "| 1.00" in completions
    (mixed,) = [line for line in predictions.splitlines() if "mixed" in line]
    assert [cell.strip() for cell in mixed.strip("|").split("|")] == [
        "mixed", "0.50", "0.50", "5", "40", "",
    ]  # fmt: skip
    (gone,) = [line for line in predictions.splitlines() if "gone" in line]
    assert [cell.strip() for cell in gone.strip("|").split("|")][-1] == "skipped"
    assert "| –" in gone


def test_of_many_prompts_a_few_and_of_long_texts_the_end():
    long = completion(3)
    groups = [named(f"p{i}", solutions=(replace(long, text="x" * 200 + "END"),) * 2)
              for i in range(40)]  # fmt: skip
    text = rollout_tables(groups, 1)
    assert f"{PROMPTS} of 40 prompts" in text and text.count("END") == PROMPTS
    assert max(map(len, text.splitlines())) < 220
    assert rollout_tables([group()], 1).count("|--") > 0


class Tables(WandbLogger):
    def __init__(self):
        self.logged = []

    def log_table(self, key, columns, data, step):
        self.logged.append((key, step, len(data)))


@pytest.mark.parametrize("every, shown", [(0, []), (1, [1, 2, 3, 4]), (2, [2, 4])])
def test_every_so_many_rollouts(every, shown, monkeypatch):
    printed, logger = [], Tables()
    logger.table_prompts = 6
    monkeypatch.setattr(callback.tqdm, "write", printed.append)
    rollout = SimpleNamespace(
        settings=TrainerConfig(show_every=every), module=SimpleNamespace(loggers=[logger])
    )
    skipped = group((), decided=plan(would_skip=True, gate_active=True))
    for step in range(1, 5):
        RolloutCallback._show(rollout, [named("a"), skipped], step)
    assert [int(text.split()[1].rstrip(",")) for text in printed] == shown
    names = [f"train/{part}" for part in ("completions", "predictions")]
    assert logger.logged == [(name, step, 2) for step in shown for name in names]


def test_it_cannot_be_negative():
    with pytest.raises(ConfigError, match="trainer.show_every is -1"):
        TrainerConfig(show_every=-1)

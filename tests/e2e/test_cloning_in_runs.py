"""Cloning of what came out, in a run."""

import re

import pytest
import torch
from runs import masa_train

from masa.tasks.arithmetic import ArithmeticTask
from masa.tasks.templates import parse_meta


@pytest.mark.slow
def test_what_came_out_is_cloned_in_the_words_of_the_task(tmp_path, cache):
    out = tmp_path / "run"
    settings = ["algorithm.control.start_step=1", "trainer.max_rollouts=2"]
    masa_train(out, cache, "algorithm=masa_calibrated", "engine=hf", *settings)
    (path,) = (out / "checkpoints").glob("*000002.ckpt")
    state = torch.load(path, weights_only=False)
    tokenizer = ArithmeticTask().tokenizer()
    experts = find(state, "experts")
    assert len(experts) >= 6
    for expert in experts:
        text = tokenizer.decode(expert["token_ids"], skip_special_tokens=True)
        assert re.match(r"<meta>[a-z]+: [a-z]+; lines \d: [a-z]+</meta>", text), text
        assert parse_meta(text, mixed=True).parsed
        asked = tokenizer.decode(expert["prompt_ids"])
        assert f") {re.match('<meta>([a-z]+)', text)[1]}" in asked


def find(tree, name):
    """The value under a key of nested dicts."""
    if isinstance(tree, dict):
        return tree.get(name) or next(filter(None, (find(v, name) for v in tree.values())), None)
    return None

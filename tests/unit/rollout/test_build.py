from dataclasses import replace
from types import SimpleNamespace

from builders import byte_tokenizer, prompts

from masa.rollout.build import build_writer
from masa.tasks.templates import PromptRenderer, Templates
from masa.types import MetaPrediction


def test_a_task_writes_predictions_with_all_columns_of_a_prompt():
    """Prompts of a rollout have lost them."""
    pool = [replace(p, columns={"subject": p.id.upper()}) for p in prompts(3)]
    task = SimpleNamespace(train=pool, write_prediction=lambda p, _: p.columns["subject"])
    tokenizer = byte_tokenizer()
    templates = Templates("{problem}", "{problem}", "{problem}{hint}")
    renderer = PromptRenderer(templates, tokenizer, 8, 64)
    write = build_writer(task, renderer)
    for one in prompts(3):
        assert tokenizer.decode(write(one, MetaPrediction(0.5, 20, ()))).startswith(one.id.upper())

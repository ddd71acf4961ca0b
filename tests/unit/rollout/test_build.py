from dataclasses import replace
from types import SimpleNamespace

import pytest
from builders import byte_tokenizer, model_folder, prompts

from masa.config import AlgorithmConfig, MetaConfig
from masa.errors import ConfigError
from masa.rollout.build import build_writer, longest_sequence
from masa.tasks.templates import PromptRenderer, Templates
from masa.training.loading import context_of
from masa.training.models import HubModel
from masa.types import MetaPrediction


def test_a_task_writes_predictions_with_all_columns_of_a_prompt():
    pool = [replace(p, columns={"subject": p.id.upper()}) for p in prompts(3)]
    task = SimpleNamespace(train=pool, write_prediction=lambda p, _: p.columns["subject"])
    tokenizer = byte_tokenizer()
    templates = Templates("{problem}", "{problem}", "{problem}{hint}")
    renderer = PromptRenderer(templates, tokenizer, 8, 64)
    write = build_writer(task, renderer)
    for one in pool:
        assert tokenizer.decode(write(one, MetaPrediction(0.5, 20, ()))).startswith(one.id.upper())


@pytest.mark.parametrize("meta, responses", [(32, 64), (64, 32)])
def test_predictions_need_room_only_where_some_are_sampled(meta, responses, tmp_path):
    model = HubModel(str(model_folder(tmp_path)), "float32")
    context = context_of(tmp_path, False)
    algorithm = AlgorithmConfig(response_limit=responses, meta=MetaConfig(min_length=2))
    limits = {"algorithm.response_limit": responses}
    assert longest_sequence(10, model, tmp_path, algorithm, limits) == 10 + responses
    both = limits | {"algorithm.meta.response_limit": meta}
    assert longest_sequence(10, model, tmp_path, algorithm, both) == 10 + 64
    longest = "meta.response_limit" if meta > responses else "algorithm.response_limit"
    with pytest.raises(ConfigError, match=f"lower algorithm.prompt_limit or .*{longest} by 1"):
        longest_sequence(context - 63, model, tmp_path, algorithm, both)

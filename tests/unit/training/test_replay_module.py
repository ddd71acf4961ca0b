"""What a replay knows of the model, without its weights."""

import pytest
import torch
from builders import algorithm, model_folder

from masa.config import OptimizerConfig, StrategyConfig, TrainerConfig
from masa.training.loading import model_size
from masa.training.lora import LoraConfig
from masa.training.models import HubModel
from masa.training.replay import ReplayModule


@pytest.mark.parametrize("rank", [None, 4])
def test_shapes_without_weights(tmp_path, rank):
    folder = model_folder(tmp_path)
    model = HubModel(str(folder), attn_implementation="eager", lora=LoraConfig(rank=rank))
    whole, shapes = model.load(folder), model.load(folder, weights=False)
    for one, other in zip(whole.named_parameters(), shapes.named_parameters(), strict=True):
        assert (one[0], one[1].shape, one[1].dtype) == (other[0], other[1].shape, other[1].dtype)
        assert other[1].is_meta
    # these are computed from the config
    for one, other in zip(whole.buffers(), shapes.buffers(), strict=True):
        assert torch.equal(one, other)

    def settings():
        return algorithm(), OptimizerConfig(), TrainerConfig(), StrategyConfig()

    module = ReplayModule(lambda _: shapes, *settings())
    module.configure_model()
    assert module.size == model_size(whole)
    assert module.attention == "eager"
    assert module.configure_optimizers() is None
    assert list(module.named_weights()) == [] == list(module.parameters())


def test_a_damaged_weight_file_does_not_matter(tmp_path):
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(b"none")
    shapes = HubModel(str(folder)).load(folder, weights=False)
    assert all(p.dtype == torch.float32 for p in shapes.parameters())

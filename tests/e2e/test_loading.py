"""Each rank reads its own part of the weights: what comes out, and how much memory that takes."""

import json
import sys
from pathlib import Path

import processes
import pytest
import torch
import torch.distributed as dist
from builders import hub_run_config
from families import save_family
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoConfig, AutoModelForCausalLM

from masa.errors import ConfigError
from masa.tracking.manifest import Manifest, digests, write_manifest
from masa.training.checkpoint import shapes
from masa.training.loading import has_names_of_files
from masa.training.lora import LoraConfig
from masa.training.models import HubModel
from masa.training.sharding import full_parameters, local_bytes, shard

HELPERS = Path(__file__).parents[1] / "helpers"


def load(rank, sizes, folder, out, settings, offload=False):
    """Load a model on replicas x shards; the first rank writes what it has to `out`."""
    torch.set_num_threads(1)
    ranks = sizes[0] * sizes[1]
    dist.init_process_group("gloo", init_method=f"file://{out}/init", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("replicas", "shards"))
    torch.manual_seed(0)
    model = HubModel(str(folder), **settings).load(
        folder, shard=lambda m: shard(m, mesh, cpu_offload=offload)
    )
    parameters = {name: tensor.clone() for name, tensor in full_parameters(model)}
    if rank == 0:
        torch.save((parameters, dict(model.named_buffers()), local_bytes(model)), out / "loaded.pt")
    dist.destroy_process_group()


def as_bin(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_several_in_bfloat16(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    # no part of the model: the index does not name it
    save_file({"lm_head.weight": torch.zeros(3)}, folder / "model_backup.safetensors")


def with_tied_weights_twice(folder):
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def as_it_is(folder):
    save_file({"lm_head.weight": torch.zeros(3)}, folder / "model_backup.safetensors")


@pytest.mark.parametrize(
    ("family", "settings", "change", "by_parts"),
    [
        ("qwen3", {}, as_it_is, True),
        ("llama", {"lora": LoraConfig(rank=2), "gradient_checkpointing": True}, as_it_is, True),
        ("gemma2", {"dtype": "bfloat16"}, as_it_is, True),
        ("llama", {}, as_several_in_bfloat16, True),
        ("qwen3", {"lora": LoraConfig(rank=2)}, as_bin, False),
        ("qwen3", {}, with_tied_weights_twice, False),
    ],
)
def test_it_is_what_one_device_loads(tmp_path, family, settings, change, by_parts):
    folder = save_family(tmp_path / "model", family, tied=family != "llama")
    change(folder)
    shapes_alone = HubModel(str(folder)).load(folder, weights=False)
    assert has_names_of_files(shapes_alone, folder, False) == by_parts
    torch.multiprocessing.start_processes(
        load, ((1, 2), folder, tmp_path, settings), nprocs=2, start_method="fork"
    )
    parameters, buffers, local = torch.load(tmp_path / "loaded.pt", weights_only=False)
    torch.manual_seed(0)
    whole = HubModel(str(folder), **settings).load(folder)
    expected = dict(whole.named_parameters())
    assert parameters.keys() == expected.keys()
    for name, tensor in parameters.items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name
    assert buffers.keys() == dict(whole.named_buffers()).keys()
    assert all(torch.equal(buffers[name], other) for name, other in whole.named_buffers())
    assert local < 0.6 * local_bytes(whole)


@pytest.mark.parametrize(("sizes", "offload"), [((2, 1), False), ((1, 3), True), ((2, 2), False)])
def test_copies_uneven_shards_and_offload(tmp_path, sizes, offload):
    folder = save_family(tmp_path / "model", "qwen3")
    torch.multiprocessing.start_processes(
        load, (sizes, folder, tmp_path, {}, offload), nprocs=sizes[0] * sizes[1],
        start_method="fork",
    )  # fmt: skip
    parameters, _, _ = torch.load(tmp_path / "loaded.pt", weights_only=False)
    for name, tensor in HubModel(str(folder)).load(folder).named_parameters():
        assert torch.equal(parameters[name], tensor), name


def test_files_of_another_shape_are_refused_as_on_one_device(tmp_path):
    folder = save_family(tmp_path / "model", "qwen3", tied=False)
    settings = json.loads((folder / "config.json").read_text())
    settings["vocab_size"] -= 1
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="weights of another shape"):
        HubModel(str(folder)).load(folder, shard=lambda model: None)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 200 M parameters in float32, and the bytes of its weights."""
    folder = tmp_path_factory.mktemp("large") / "model"
    shape = AutoConfig.for_model(
        "qwen3", hidden_size=1024, num_hidden_layers=12, num_attention_heads=16,
        num_key_value_heads=8, head_dim=64, intermediate_size=3072, vocab_size=49152,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(shape)
    model.save_pretrained(folder)
    family = save_family(folder.parent / "tokenizer", "qwen3")
    for file in family.glob("tokenizer*"):
        file.rename(folder / file.name)
    return folder, model


def measured(program, *arguments):
    """Peak bytes above what each process held before."""
    made = processes.run([sys.executable, HELPERS / program, *arguments])
    return [int(line) for line in made.stdout.split()]


@pytest.mark.slow
def test_memory_of_a_rank(large, tmp_path):
    folder, model = large
    peaks = measured("measure_load.py", folder, tmp_path)
    assert len(peaks) == 2 and max(peaks) < 0.65 * local_bytes(model)


@pytest.mark.slow
def test_memory_of_an_export(large, tmp_path):
    """The weights once; the checkpoint has the optimizer's state as well."""
    folder, model = large
    run, checkpoint = tmp_path / "run", tmp_path / "run" / "checkpoints" / "step-000001.ckpt"
    checkpoint.parent.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(hub_run_config(folder)), run / "config.yaml")
    weights = {f"policy.{name}": tensor / 2 for name, tensor in model.state_dict().items()}
    moments = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    torch.save({"state_dict": weights, "optimizer_states": [moments, dict(moments)]}, checkpoint)
    write_manifest(
        Manifest(1, None, shapes(model), digests(checkpoint, checkpoint.name)), checkpoint
    )
    (peak,) = measured("measure_export.py", run, tmp_path / "out")
    assert peak < 1.3 * local_bytes(model)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for one, two in zip(model.parameters(), after.parameters(), strict=True):
        assert torch.equal(one / 2, two)

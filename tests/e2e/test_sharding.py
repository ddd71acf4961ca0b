"""Three optimizer steps under FSDP2 on CPU ranks: what one unsharded rank computes."""

import pytest
import torch
import torch.distributed as dist
from builders import algorithm, random_samples, tiny_qwen3
from torch.distributed.device_mesh import init_device_mesh

from masa.algorithm.losses import total_loss
from masa.rollout.packing import build_update, rank_shard, token_counts, token_weights
from masa.training.collectives import max_over_ranks, sum_over_ranks
from masa.training.logprobs import token_logprobs
from masa.training.sharding import full_parameters, shard

CONFIG = algorithm(bc={"mode": "joint"})
PAD = 47


def train(rank, ranks, folder, options):
    """Three steps; the first rank writes losses, gradient norms and parameters to `folder`."""
    torch.set_num_threads(1)
    model = tiny_qwen3(tied=options.get("tied", False))
    if options.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    if ranks > 1:
        init = f"file://{folder}/init"
        dist.init_process_group("gloo", init_method=init, rank=rank, world_size=ranks)
        shards = options.get("shards", ranks)
        mesh = init_device_mesh(
            "cpu", (ranks // shards, shards), mesh_dim_names=("replicas", "shards")
        )
        shard(model, mesh, options.get("precision", "32-true"), options.get("offload", False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, norms = [], []
    for step in range(3):
        # few samples, so that one rank has a dummy among its micro-batches
        samples = random_samples(5, seed=step)
        update = build_update(
            rank_shard(samples, CONFIG, rank, ranks), CONFIG, 30, PAD,
            token_weights(token_counts(samples), CONFIG), lambda n: int(max_over_ranks(n)),
            layout=options.get("layout", "padded"),
        )  # fmt: skip
        optimizer.zero_grad()
        loss_sum = 0.0
        for batch in update:
            logprobs, _ = token_logprobs(model, batch, 1.0)
            loss, _ = total_loss(logprobs, batch, CONFIG)
            (loss * ranks).backward()
            loss_sum += float(loss)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        norms.append(float(norm.full_tensor() if ranks > 1 else norm))
        losses += sum_over_ranks([loss_sum])
        optimizer.step()
    parameters = {name: tensor.clone() for name, tensor in full_parameters(model)}
    if rank == 0:
        torch.save((losses, norms, parameters), folder / "result.pt")
    if ranks > 1:
        dist.destroy_process_group()


def result(folder, ranks, **options):
    folder.mkdir()
    if ranks == 1:
        train(0, 1, folder, options)
    else:
        # forked: each rank would else spend seconds on imports
        torch.multiprocessing.start_processes(
            train, (ranks, folder, options), nprocs=ranks, start_method="fork"
        )
    losses, norms, parameters = torch.load(folder / "result.pt")
    return losses, norms, torch.cat([p.flatten() for p in parameters.values()])


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (2, {}),
        (2, {"tied": True, "checkpointing": True}),
        (2, {"offload": True, "layout": "packed"}),
        pytest.param(4, {"shards": 2}, marks=pytest.mark.slow),
        pytest.param(2, {"shards": 1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ranks_compute_what_one_computes(tmp_path, ranks, options):
    """Losses and norms to 1e-5, parameters to 1e-6 after updates of 3e-3."""
    one = result(tmp_path / "one", 1, tied=options.get("tied", False))
    many = result(tmp_path / "many", ranks, **options)
    assert many[0] == pytest.approx(one[0], rel=1e-5)
    assert many[1] == pytest.approx(one[1], rel=1e-5)
    torch.testing.assert_close(many[2], one[2], rtol=0, atol=1e-6)


def test_bfloat16_computes_but_parameters_stay_float32(tmp_path):
    one = result(tmp_path / "one", 1)
    many = result(tmp_path / "many", 2, precision="bf16-mixed")
    assert many[2].dtype == torch.float32
    assert many[0] == pytest.approx(one[0], abs=0.05 * max(map(abs, one[0])))
    assert many[1] != one[1] and many[1] == pytest.approx(one[1], rel=0.05)

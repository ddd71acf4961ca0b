"""Peak memory of loading a model on two ranks: `measure_load.py FOLDER DIRECTORY`.

Prints a line per rank: bytes above what the process held before.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from memory import peak, resident
from torch.distributed.device_mesh import init_device_mesh

import masa.training.loading  # noqa: F401  its libraries' memory is no weights
from masa.training.models import HubModel
from masa.training.sharding import shard


def load(rank: int, folder: Path, directory: Path) -> None:
    """One rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/init", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("replicas", "shards"))
    before = resident()
    HubModel(str(folder)).load(folder, shard=lambda model: shard(model, mesh))
    # in one write, or the lines of two ranks mix
    print(f"{peak() - before}\n", end="", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    arguments = tuple(map(Path, sys.argv[1:]))
    torch.multiprocessing.start_processes(load, arguments, nprocs=2, start_method="spawn")

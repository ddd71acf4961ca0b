"""Work split over ranks by its load, and results that come back in order."""

import json
import random

import pytest
import torch.distributed as dist
import torch.multiprocessing
from builders import World, algorithm, meta_text, prompts
from hypothesis import given
from hypothesis import strategies as st

from masa.algorithm.step import collect
from masa.training.balance import balanced
from masa.training.collectives import share_work
from masa.types import Request


@given(st.lists(st.integers(0, 9999), max_size=40), st.integers(1, 5))
def test_every_item_once_and_like_loads(loads, parts):
    split = balanced(loads, parts)
    assert sorted(i for part in split for i in part) == list(range(len(loads)))
    assert all(part == sorted(part) for part in split) and len(split) == parts
    totals = [sum(loads[i] for i in part) for part in split]
    assert max(totals) - min(totals) <= max(loads, default=0)
    assert split == balanced(loads, parts)


def test_items_without_a_load_are_spread_too():
    assert [len(part) for part in balanced([0] * 9, 3)] == [3, 3, 3]


def test_skewed_lengths_are_split_better_than_in_turn():
    rng = random.Random(0)
    loads = [round(rng.lognormvariate(6, 1.5)) for _ in range(128)]
    in_turn = max(sum(loads[rank::8]) for rank in range(8))
    by_load = max(sum(loads[i] for i in part) for part in balanced(loads, 8))
    best = max(sum(loads) / 8, *loads)
    assert by_load <= 1.02 * best and in_turn > 1.3 * best


def test_expected_tokens_of_a_request():
    assert Request((1, 2, 3), (), 0).expected_tokens == 0  # skipped by the gate
    assert Request((1, 2, 3), (7, 8), 50).expected_tokens == 103
    assert Request((1, 2, 3), (7, 8), 50, 20).expected_tokens == 43
    assert Request((1, 2, 3), (7, 8), 50, 60).expected_tokens == 103


def test_solutions_are_expected_to_be_as_long_as_predicted():
    """Also where no cutoff acts; without predictions up to the limit."""
    steering = {"gate": {"enabled": True, "min_precision": 0.0}}
    for start, predicted in ((0, 20), (5, None)):
        config = algorithm(control={"start_step": start}, **steering)
        world = World(config, lambda *_: meta_text(4, 10), lambda *_: "=1")
        collect(prompts(2), world.at(1))
        requests = [request for call in world.engine.calls for request in call][2:]
        assert [request.cutoff_tokens for request in requests] == [predicted, predicted]
        assert [request.max_tokens for request in requests] == [64, 64]


def rank_of(rank, ranks, per_engine, folder):
    init = f"file://{folder}/init"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=ranks)
    engine = rank // per_engine
    # the first engine gets all the long ones, the last nothing
    items = [[f"long{i}" for i in range(6)], ["short"], []][engine]
    loads = [100 if "long" in item else 1 for item in items]
    worked_on = []

    def work(batch):
        worked_on.extend(batch)
        return [item.upper() for item in batch]

    results = share_work(items, loads, work, per_engine)
    (folder / f"{rank}.json").write_text(json.dumps([items, results, worked_on]))
    dist.destroy_process_group()


@pytest.mark.parametrize("per_engine", [1, 2])
def test_ranks_share_the_work_and_get_their_own_results_in_order(tmp_path, per_engine):
    ranks = 3 * per_engine
    torch.multiprocessing.start_processes(
        rank_of, (ranks, per_engine, tmp_path), nprocs=ranks, start_method="fork"
    )
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)]
    for items, results, _ in reports:
        assert results == [item.upper() for item in items]
    long = [sum("long" in item for item in worked_on) for _, _, worked_on in reports]
    assert long == [2] * ranks
    assert [worked_on for _, _, worked_on in reports[::per_engine]] == [
        worked_on for _, _, worked_on in reports[per_engine - 1 :: per_engine]
    ]


def test_one_rank_does_all():
    assert share_work([1, 2], [5, 0], lambda items: [-i for i in items]) == [-1, -2]

"""A recorded run is played once more, without a model: the same numbers, in seconds."""

import signal

import hydra
import pandas as pd
import pytest
import runs

from masa.cli import app
from masa.cli.config_store import conf_dir
from masa.errors import TrainingError
from masa.train import check, run

pytestmark = pytest.mark.slow

SETTINGS = [
    *(setting for setting in runs.MASA if "cutoff" not in setting), "algorithm.cutoff.max_lost=1",
    "algorithm.cutoff._target_=toy_cutoff.FixedCutoff", "~algorithm.cutoff.margin",
    "~algorithm.cutoff.min_parsed", "+algorithm.cutoff.limit=20", "algorithm.control.hint=true",
    "algorithm.overlong_buffer=0.5",
]  # fmt: skip
OF_UPDATES = (
    "loss", "learning_rate", "grad_norm", "entropy", "sampling/", "clip_ratio/", "nonfinite_updates"
)  # fmt: skip
"""Beginnings of the metrics that an update measures."""


@pytest.fixture(scope="module")
def recorded(cache, tmp_path_factory):
    """A run with hints, gate and cutoff active, and cloning."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    runs.masa_train(folder, cache, *SETTINGS, "engine=hf", "trainer.record_tokens=true")
    return folder


@pytest.fixture
def replay(cache, tmp_path, monkeypatch):
    """Plays a run with its settings and further ones; returns the new run directory."""
    monkeypatch.setattr(app, "quiet", lambda path: None)
    monkeypatch.setenv("MASA_CACHE", str(cache))

    def play(recorded, *overrides):
        out = tmp_path / "replay"
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = hydra.compose(
                "config",
                [*runs.SMALL, *SETTINGS, "engine=recorded", f"engine.run={recorded}",
                 f"++output_dir={out}", *overrides],
            )  # fmt: skip
        check(cfg)
        run(cfg)
        return out

    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    }
    yield play
    for number, handler in handlers.items():
        signal.signal(number, handler)


def columns(run):
    table = pd.read_csv(run / "metrics.csv", dtype=str).set_index("step")
    table.index = table.index.astype(int)
    return table[[name for name in table if not name.startswith(OF_UPDATES)]]


def assert_same(recorded, played, but=()):
    """All metrics of rollouts and validations, and all rollouts, to the last bit."""
    before, now = (columns(run).drop(columns=list(but)) for run in (recorded, played))
    pd.testing.assert_frame_equal(before, now, check_like=True)
    of_updates = {name for name in pd.read_csv(played / "metrics.csv")} - {*columns(played), "step"}
    assert of_updates == set()
    for split in ("train", "val"):
        pd.testing.assert_frame_equal(
            runs.rollouts(recorded, split), runs.rollouts(played, split), check_exact=True
        )


def test_nothing_changed(recorded, replay):
    metrics = columns(recorded).astype(float)
    for name in ("gate/fraction", "cutoff/fraction", "overlong_penalty", "bc/pool_size",
                 "val/meta/reward"):  # fmt: skip
        assert (metrics[name].dropna() > 0).any(), name
    played = replay(recorded, "trainer.record_tokens=true")
    assert_same(recorded, played)
    assert not (played / "checkpoints").exists()
    assert (played / "report.md").is_file()


def test_another_reward(recorded, replay):
    played = columns(replay(recorded, "algorithm.meta.rewards.length.weight=0"))
    before = columns(recorded)
    different = {name for name in before if not before[name].equals(played[name])}
    # predictions of one reward are not run; cloning chooses by the notions, so its experts stay
    run = {"padding_share", "cost/tokens_trained", "cost/flops"}
    assert different - run == {"meta/reward", "val/meta/reward", "val/unseen/meta/reward"}


def test_stricter_gate(recorded, replay):
    played = replay(recorded, "algorithm.gate.tolerance=0.5")
    more, before = (columns(run).astype(float) for run in (played, recorded))
    assert more["gate/fraction"].sum() >= before["gate/fraction"].sum() > 0


def test_stricter_cutoff(recorded, replay):
    played = replay(recorded, "algorithm.cutoff.limit=12")
    cut = runs.rollouts(played).query("kind == 'solution' and step > 2 and not audited")
    assert cut["tokens"].max() == 12 and cut["finish_reason"].eq("length").any()


def test_a_part_of_the_run(recorded, replay):
    """A validation that the run did not have is left out."""
    played = columns(replay(recorded, "trainer.max_rollouts=3", "trainer.val_every=1"))
    assert played["val/accuracy"].dropna().index.tolist() == [0, 2]
    before = columns(recorded).loc[:3]
    pd.testing.assert_frame_equal(before.dropna(axis=1, how="all"), played, check_like=True)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["algorithm.gate.enabled=false"], "prompt .* of rollout [34] was skipped in"),
        (["algorithm.cutoff.enabled=false"], "prompt .* of rollout [34] was stopped after"),
        (["algorithm.control.hint=false"], "prompt .* of rollout [34] has another text than in"),
        (["task.config.seed=1"], "prompt .* is not in .*task, sampler"),
    ],
)
def test_what_was_not_recorded_is_an_error(recorded, replay, overrides, message):
    with pytest.raises(TrainingError, match=message) as caught:
        replay(recorded, *overrides)
    assert "\n" not in str(caught.value) and str(recorded) in str(caught.value)


@pytest.mark.slow
def test_a_run_of_two_ranks_with_dynamic_sampling(cache, replay, tmp_path):
    two = ["strategy=fsdp", "strategy.devices=2", "trainer.accelerator=cpu"]
    recorded = tmp_path / "two"
    refilled = ["algorithm.dynamic_sampling=1", "trainer.record_tokens=true"]
    runs.masa_train(recorded, cache, *SETTINGS, *two, "engine=hf", *refilled, ranks=2)
    assert columns(recorded)["dynamic_sampling/extra_prompts"].astype(float).sum() > 0
    played = replay(recorded, *refilled)
    # as many micro-batches on both ranks: one may be padding, and it counts
    assert_same(recorded, played, ["padding_share", "cost/tokens_trained", "cost/flops"])

import logging

import lightning as L
import pytest
import torch
from builders import epochs, prompts

from masa.errors import TrainingError
from masa.rollout.datamodule import MasaDataModule
from masa.rollout.loader import Draws, RolloutLoader
from masa.rollout.samplers import ShuffledEpochs
from masa.types import StepBatch

# --- one batch after another


def loader(events, **where):
    def rollout(drawn, step, draw):
        events.append(("rollout", step, [p.id for p in drawn]))
        return StepBatch(step, [], {})

    return RolloutLoader(epochs(12, 4, seed=0), rollout, 5, **where)


def test_a_rollout_is_made_when_it_is_asked_for():
    events = []
    stream = loader(events)
    assert len(stream) == 5
    batches = iter(stream)
    assert events == []
    for step in range(1, 6):
        assert next(batches).step == step
        assert [event[1] for event in events] == list(range(1, step + 1))
    assert next(batches, None) is None
    assert len(events) == 5


def test_a_sampler_that_fails_has_changed_nothing():
    """So that the rollouts before it are saved."""

    def draw(number):
        raise TrainingError("sampler: must return 4 prompts")

    with pytest.raises(TrainingError, match="sampler") as caught:
        next(iter(RolloutLoader(draw, None, 5)))
    assert caught.value.nothing_changed


def test_ranks_share_the_prompts_of_a_step():
    whole, shares = [], [[], [], []]
    list(loader(whole))
    for rank, events in enumerate(shares):
        list(loader(events, rank=rank, world_size=3))
    for step, (_, _, everything) in enumerate(whole):
        mine = [share[step][2] for share in shares]
        assert [mine[i % 3][i // 3] for i in range(4)] == everything


def test_a_loader_goes_on_where_it_stopped():
    straight, before, after = [], [], []
    list(loader(straight))
    first, second = loader(before), loader(after)
    for _ in zip(range(2), first, strict=False):
        pass
    second.load_state_dict(first.state_dict())
    assert [batch.step for batch in second] == [3, 4, 5]
    assert before + after == straight


def test_further_draws_move_the_cursor_and_repeat_no_prompt():
    def run(stop=99, state=None, **where):
        events = []

        def rollout(drawn, step, draw):
            got = [list(drawn), *(list(draw()) for _ in range(step % 3))]
            events.append((step, [[p.id for p in part] for part in got]))
            return StepBatch(step, [], {})

        stream = RolloutLoader(epochs(10, 4, seed=0), rollout, 6, **where)
        if state:
            stream.load_state_dict(state)
        for batch in stream:
            if batch.step == stop:
                break
        return events, stream.state_dict()

    straight, state = run()
    assert state == {"completed": 6, "drawn": 6 + 1 + 2 + 0 + 1 + 2 + 0}
    draw_of = epochs(10, 4, seed=0)
    drawn = 0
    for _, parts in straight:
        ids = [name for part in parts for name in part]
        assert len(set(ids)) == len(ids)
        for part in parts:
            drawn += 1
            whole = [p.id for p in draw_of(drawn)]
            assert [name for name in whole if name in part] == part
    before, cursor = run(stop=2)
    after, _ = run(state=cursor)
    assert before + after == straight
    shares = [run(rank=rank, world_size=2)[0] for rank in range(2)]
    for (_, whole), (_, one), (_, two) in zip(straight, *shares, strict=True):
        for part, left, right in zip(whole, one, two, strict=True):
            assert part[::2] == left and part[1::2] == right


def test_prompts_taken_a_few_at_a_time_are_those_of_the_draws():
    def run(counts, rank=0, world_size=1):
        numbers = iter(range(1, 99))
        draws = Draws(lambda: draw_of(next(numbers)), rank, world_size)
        parts = [(draws(), 4), *(draws.take(count, 3) for count in counts)]
        return [[p.id for p in part] for part, _ in parts], [n for _, n in parts], draws.made

    draw_of = epochs(12, 4, seed=0)
    in_order = [p.id for number in (1, 2, 3) for p in draw_of(number)]
    parts, counts, made = run([1, 2, 3, 5, 2])
    assert counts == [4, 1, 2, 3, 2, 0] and made == 3
    assert [name for part in parts for name in part] == in_order
    assert run([2])[2] == 2 and run([4])[2] == 2 and run([5])[2] == 3
    (one, _, _), (two, _, _) = (run([1, 2, 3, 5, 2], rank, 2) for rank in range(2))
    for whole, left, right in zip(parts, one, two, strict=True):
        assert whole[::2] == left and whole[1::2] == right


def test_a_whole_draw_leaves_out_the_rest_of_the_one_before():
    numbers = iter(range(1, 99))
    draws = Draws(lambda: epochs(12, 4, seed=0)(next(numbers)))
    draws()
    draws.take(1, 2)
    assert draws() == epochs(12, 4, seed=0)(3)


# --- under Lightning


class Recorder(L.LightningModule):
    """Counts its updates, each of which a rollout has to see."""

    def __init__(self, events):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.events = events

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def training_step(self, batch, batch_idx):
        self.manual_backward(-self.weight.sum())
        self.optimizers().step()
        self.optimizers().zero_grad()
        self.events.append(("train", batch.step))


def fit(tmp_path, steps, events, ckpt_path=None, save=None):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = Recorder(events)

    def rollout(drawn, step, draw):
        assert len({p.id for p in drawn}) == 4
        events.append(("rollout", step, int(module.weight)))
        return StepBatch(step, [], {})

    class Save(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch.step == save:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")
                trainer.should_stop = True

    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, callbacks=[Save()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    data = MasaDataModule(prompts(12), ShuffledEpochs(), rollout, 4, steps, seed=0)
    trainer.fit(module, data, ckpt_path=ckpt_path)


@pytest.mark.filterwarnings("ignore")
def test_lightning_pulls_each_rollout_after_the_update_before_it(tmp_path):
    events = []
    fit(tmp_path, 4, events)
    # at rollout s the policy has taken s - 1 steps: none is made ahead
    expected = [e for s in range(1, 5) for e in (("rollout", s, s - 1), ("train", s))]
    assert events == expected


@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_the_loader_after_the_last_trained_rollout(tmp_path):
    events = []
    fit(tmp_path, 5, events, save=2)
    assert events[-1] == ("train", 2)
    fit(tmp_path, 5, events, ckpt_path=tmp_path / "saved.ckpt")
    expected = [e for s in range(1, 6) for e in (("rollout", s, s - 1), ("train", s))]
    assert events == expected


def test_a_rollout_that_is_given_up_draws_the_same_prompts_again():
    class GivenUp(BaseException):
        pass

    def rollout(drawn, step, draw):
        draw()
        raise GivenUp

    stream = RolloutLoader(epochs(10, 4, seed=0), rollout, 6)
    stream.load_state_dict({"completed": 2, "drawn": 3})
    with pytest.raises(GivenUp):
        next(iter(stream))
    assert stream.state_dict() == {"completed": 2, "drawn": 3}

"""Learning rates of a run, against transformers', and after a resume."""

import pytest
import torch
from transformers import get_scheduler

from masa.config import OptimizerConfig
from masa.training.optimizer import build_adamw, build_schedule, with_state

STEPS = 12


def run_of(config, steps=STEPS):
    """A parameter with its optimizer and schedule."""
    parameter = torch.nn.Parameter(torch.ones(3))
    adamw = build_adamw([parameter], config)
    return parameter, adamw, build_schedule(adamw, config, steps)


def train(parameter, adamw, schedule, steps):
    """The learning rate of each step, as the optimizer has it while it steps."""
    rates = []
    for _ in range(steps):
        rates.append(adamw.param_groups[0]["lr"])
        assert schedule.get_last_lr() == rates[-1:]
        adamw.zero_grad()
        parameter.square().sum().backward()
        adamw.step()
        schedule.step()
    return rates


def rates_of(**settings):
    return train(*run_of(OptimizerConfig(lr=3e-4, **settings)), STEPS)


@pytest.mark.parametrize("warmup", [0, 1, 5, 20])
def test_by_default_the_rate_rises_linearly_and_stays(warmup):
    expected = [3e-4 * min(1.0, (n + 1) / warmup) if warmup else 3e-4 for n in range(STEPS)]
    assert rates_of(warmup_steps=warmup) == expected


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_is_that_of_transformers_without_its_step_of_rate_zero(schedule, warmup):
    rates = rates_of(schedule=schedule, warmup_steps=warmup)
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=3e-4)
    theirs = get_scheduler(schedule, adamw, warmup, STEPS + 1)
    expected = []
    for _ in range(STEPS + 1):
        expected += theirs.get_last_lr()
        adamw.step()
        theirs.step()
    assert rates == expected[1:]
    assert theirs.get_last_lr() == [0.0]
    assert min(rates) > 0
    if warmup:
        assert rates[:warmup] == [3e-4 * min(1.0, n / warmup) for n in range(1, warmup + 1)]
    falling = rates[max(0, warmup - 1) :]
    assert all(later < earlier for earlier, later in zip(falling, falling[1:], strict=False))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_resumed_run_goes_on_in_its_schedule(schedule, tmp_path):
    config = OptimizerConfig(lr=1e-2, schedule=schedule, warmup_steps=3)
    whole = run_of(config)
    rates = train(*whole, STEPS)
    first = run_of(config)
    before = train(*first, 5)
    torch.save([part.state_dict() for part in first[1:]], tmp_path / "state")
    resumed = run_of(config)
    resumed[0].data.copy_(first[0].data)
    for part, state in zip(resumed[1:], torch.load(tmp_path / "state"), strict=True):
        part.load_state_dict(state)
    assert before + train(*resumed, STEPS - 5) == rates
    assert torch.equal(resumed[0], whole[0])


def test_betas_reach_adamw():
    _, adamw, _ = run_of(OptimizerConfig(beta1=0.8, beta2=0.95))
    assert adamw.param_groups[0]["betas"] == (0.8, 0.95)
    _, adamw, _ = run_of(OptimizerConfig())
    assert adamw.param_groups[0]["betas"] == torch.optim.AdamW([torch.zeros(1)]).defaults["betas"]


def test_state_from_the_start_changes_nothing():
    """Bit for bit, with the state that AdamW makes at its first step."""
    config = OptimizerConfig(lr=3e-4, weight_decay=0.1)
    later, now = run_of(config), run_of(config)
    with_state(now[1])
    before = {name: value.clone() for name, value in now[1].state[now[0]].items()}
    assert all(not value.any() for value in before.values())
    for parameter, adamw, schedule in (later, now):
        train(parameter, adamw, schedule, 3)
    assert torch.equal(later[0], now[0])
    made, given = (run[1].state[run[0]] for run in (later, now))
    assert made.keys() == given.keys() == before.keys()
    for name, value in made.items():
        assert torch.equal(value, given[name]) and value.dtype == before[name].dtype

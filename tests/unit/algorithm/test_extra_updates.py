"""When there are optimizer steps on the meta rollouts alone."""

from builders import algorithm, group, plan

from masa.algorithm.controller import Controller


def controller(**meta):
    return Controller(algorithm(meta=meta), 0)


def outcomes(right, wrong):
    """Prompts that the gate would skip, with and without one verdict."""
    skip = plan(would_skip=True)
    return [group((False, False), decided=skip)] * right + [group(decided=skip)] * wrong


def test_none_by_default():
    assert [controller().extra_updates(step) for step in (1, 2, 99)] == [0, 0, 0]


def test_they_end_with_a_rollout():
    ending = controller(extra_updates=2, extra_until=3)
    assert [ending.extra_updates(step) for step in range(1, 6)] == [2, 2, 2, 0, 0]
    assert controller(extra_updates=1).extra_updates(10**6) == 1


def test_they_pause_while_the_gate_is_right_often_enough():
    pausing = controller(extra_updates=2, extra_until=9, extra_until_precision=0.75)
    assert pausing.extra_updates(1) == 2  # nothing is known
    pausing.observe(outcomes(1, 0))
    assert pausing.extra_updates(2) == 2  # too little
    pausing.observe(outcomes(2, 1))
    assert pausing.extra_updates(3) == 0
    # a window of eight
    state = pausing.state_dict()
    pausing.observe(outcomes(0, 4))
    assert pausing.extra_updates(4) == 2
    assert pausing.extra_updates(10) == 0
    pausing.load_state_dict(state)
    assert pausing.extra_updates(4) == 0

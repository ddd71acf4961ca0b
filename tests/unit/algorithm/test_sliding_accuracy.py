import math

import pytest
from builders import algorithm, group, plan
from hypothesis import given
from hypothesis import strategies as st

from masa.algorithm.controller import Controller
from masa.algorithm.sliding_accuracy import SlidingAccuracy


@given(
    st.lists(st.booleans(), max_size=20),
    st.integers(1, 8),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_mean_of_the_newest(verdicts, window, minimum, level):
    evidence = SlidingAccuracy(window, minimum)
    for verdict in verdicts:
        evidence.add([verdict])
    newest = verdicts[-window:]
    if newest:
        assert evidence.mean == pytest.approx(sum(newest) / len(newest))
    else:
        assert math.isnan(evidence.mean)
    known = len(newest) >= minimum
    assert evidence.at_least(level) == (
        level == 0 or (known and sum(newest) >= level * len(newest))
    )


def test_state_round_trip_keeps_the_window():
    evidence, other = SlidingAccuracy(3, 1), SlidingAccuracy(3, 1)
    other.add([0, 0, 0])
    evidence.add([1, 0, 0.5, 1])
    assert evidence.state_dict() == {"verdicts": [0, 0.5, 1]}
    other.load_state_dict(evidence.state_dict())
    other.add([1])
    assert other.state_dict() == {"verdicts": [0.5, 1, 1]}
    assert evidence.state_dict() == {"verdicts": [0, 0.5, 1]}


PHASES = [
    # enforced, audited, solutions, counts as evidence
    (False, False, True, True),  # shadow mode: every prompt runs in full
    (True, True, True, True),  # audited
    (True, False, True, False),  # control had a part in it
    (True, False, False, False),  # skipped
]


@pytest.mark.parametrize(("enforced", "audited", "rolled", "counts"), PHASES)
def test_evidence_is_audited_or_from_the_shadow_mode(enforced, audited, rolled, counts):
    config = algorithm(gate={"enabled": True}, cutoff={"enabled": True})
    controller = Controller(config, seed=0)
    for gated in (True, False):
        decided = plan(would_skip=gated, cutoff_tokens=10, enforced=enforced, audited=audited)
        lengths, correct = ((5, 50), (True, True)) if rolled else ((), ())
        seen = group(correct, lengths, decided=decided, uncensored=rolled)
        controller.observe([seen])
    assert controller.state_dict()["gate_precision"]["verdicts"] == ([1.0] if counts else [])
    # an acting gate would have kept the gated prompt from the cutoff
    met = [0.5] if enforced else [0.5, 0.5]
    assert controller.state_dict()["cutoff_kept"]["verdicts"] == (met if counts else [])


def test_gate_and_cutoff_are_measured_apart():
    """A gate in shadow mode is measured by what it would skip, which the cutoff leaves alone."""
    shadow = group(
        (True, True), decided=plan(would_skip=True, cutoff_active=True, exempt_from_cutoff=True)
    )
    assert shadow.skip_evidence and not shadow.gate_evidence and not shadow.cutoff_evidence
    # with the stopped ones missing, what is left would be a choice among them
    cut = group((True, True), decided=plan(would_skip=True, cutoff_active=True))
    assert not cut.gate_evidence and not cut.skip_evidence
    gate_only = group((True, True), decided=plan(gate_active=True))
    assert gate_only.cutoff_evidence and not gate_only.gate_evidence

import math

import numpy as np
import pytest
from builders import group, plan

from masa.algorithm.sliding_gain import GateVerdict, SlidingGain, gain_of, verdicts_on


def random_verdicts(rng, n, audit):
    """Signal mostly among what is kept, tokens among what is not; the skipped are seen rarely."""
    for _ in range(n):
        keeps = rng.random() < 0.4
        if keeps or rng.random() < audit:
            mixed = rng.random() < (0.6 if keeps else 0.05)
            tokens = int(rng.integers(50, 150) * (1 if keeps else 3))
            yield GateVerdict(keeps, bool(mixed), tokens, 1.0 if keeps else 1 / audit)


TRUE_SIGNAL = 0.4 * 0.6 / (0.4 * 0.6 + 0.6 * 0.05)
TRUE_TOKENS = 0.4 / (0.4 + 0.6 * 3)


def test_by_hand():
    estimate = gain_of([
        GateVerdict(True, True, 10, 1.0), GateVerdict(True, False, 20, 1.0),
        GateVerdict(False, True, 5, 2.0),
    ])  # fmt: skip
    assert estimate.signal_kept == pytest.approx(1 / 3)
    assert estimate.tokens_kept == pytest.approx(30 / 40)
    assert estimate.gain == pytest.approx(4 / 9)


@pytest.mark.parametrize("audit", [0.1, 0.3, 1.0])
def test_without_bias_and_the_error_is_that_of_repetitions(audit):
    rng = np.random.default_rng(0)
    estimates = [gain_of(random_verdicts(rng, 600, audit)) for _ in range(300)]
    for name, true in (("signal_kept", TRUE_SIGNAL), ("tokens_kept", TRUE_TOKENS)):
        assert np.mean([getattr(e, name) for e in estimates]) == pytest.approx(true, abs=0.015)
    spread = np.std([e.gain for e in estimates])
    assert np.mean([e.error for e in estimates]) == pytest.approx(spread, rel=0.2)


def test_what_is_not_known():
    assert math.isnan(gain_of([]).gain)
    assert math.isnan(gain_of([GateVerdict(True, False, 9, 1.0)]).gain)
    nothing_kept = gain_of([GateVerdict(False, True, 9, 1.0)])
    assert (nothing_kept.signal_kept, nothing_kept.tokens_kept) == (0, 0)
    assert math.isnan(nothing_kept.gain)


def test_a_gate_that_skips_nothing_does_not_pay():
    sliding = SlidingGain(100, 2)
    sliding.add([group((True, False))] * 50)
    assert not sliding.above(1.0) and sliding.above(0.9) and sliding.above(0.0)


def test_it_needs_a_minimum_and_forgets():
    skips, keeps = plan(would_skip=True), plan()
    pays = [group((True, False), decided=keeps), group((True, True), decided=skips)] * 8
    sliding = SlidingGain(32, 16)
    sliding.add(pays[:15])
    assert not sliding.above(1.0)
    sliding.add(pays)
    assert sliding.above(1.0)
    sliding.add([group((True, False), decided=d) for d in (skips, keeps, skips, skips)] * 8)
    assert not sliding.above(1.0)


def test_state_round_trip():
    sliding, other = SlidingGain(8, 2), SlidingGain(8, 2)
    sliding.add([group((True, False)), group((True, True), decided=plan(would_skip=True))] * 3)
    other.load_state_dict(sliding.state_dict())
    assert other.state_dict() == sliding.state_dict()
    assert other.above(1.1) and not other.above(1.3)


@pytest.mark.parametrize("decided, weight", [
    (plan(), 1),
    (plan(enforced=True, audited=True, full_probability=0.05), 20),
    (plan(enforced=True, full_probability=0.05), 0),
    (plan(gate_active=True), 1),  # let through, and no cutoff
    (plan(cutoff_active=True, would_skip=True, exempt_from_cutoff=True), 1),
])  # fmt: skip
def test_what_a_group_stands_for(decided, weight):
    assert group((True, False), decided=decided).evidence_weight == weight
    assert len(verdicts_on([group((True, False), decided=decided)])) == (weight > 0)
    assert group((), decided=decided).evidence_weight == 0

"""Nothing mastered is lost: what is skipped is seen again, and let through where it has changed."""

import numpy as np
import pytest
from builders import algorithm, group, plan, prediction, prompt
from pools import Family, families, play

from masa.algorithm.alarm import Alarm
from masa.algorithm.controller import Controller
from masa.algorithm.gates import CountsGate, HistoryGate, PredictionGate
from masa.algorithm.sliding_gain import gain_of, verdicts_on
from masa.tracking.metrics import control_metrics
from masa.types import MetaPrediction

G = 8


def controller(gate=None, **control):
    """A gate by predictions that acts from the second rollout on."""
    config = algorithm(
        group_size=G, response_limit=400, gate={"enabled": True, **(gate or {})},
        control={"start_step": 1, "audit_fraction": 0.1, "window": 64, "min_evidence": 12}
        | control,
    )  # fmt: skip
    return Controller(config, seed=0)


def knows_the_kind(family, rng):
    rate = {"t": 1.0, "l": 0.5, "r": 0.25, "h": 0.0}[family.name[0]]
    return MetaPrediction(rate, family.tokens, ())


def pool(step):
    return families()


def groups(steps):
    return [rolled.group for step in steps for rolled in step]


def test_each_kind_is_revisited_as_often_as_asked():
    control = {"audit_trivial": 0.4, "audit_hopeless": 0.05}
    done = groups(list(play(controller(**control), pool, 100, knows_the_kind))[1:])
    for kind, share in (("trivial", 0.4), ("hopeless", 0.1)):  # the audit is more than .05
        of_kind = [g for g in done if g.plan.skip_kind == kind]
        seen = np.mean([not g.skipped for g in of_kind])
        assert seen == pytest.approx(share, abs=0.04)
        assert {g.plan.full_probability for g in of_kind} == {share}
        assert np.mean([g.plan.audited for g in of_kind]) == pytest.approx(0.1, abs=0.03)
    assert all(g.plan.skip_kind == "" for g in done if not g.plan.would_skip)
    assert not any(g.skip_evidence for g in done if g.plan.revisited)


def test_what_an_alarm_lets_through_is_no_evidence_of_skips():
    """Of one kind alone, it would drown the audits of the other."""
    skips = {"gate_active": True, "would_skip": True, "exempt_from_cutoff": True}
    alarmed = group((True, False), decided=plan(**skips))
    audited = group((True, False), decided=plan(**skips, audited=True))
    assert alarmed.plan.alarmed and not audited.plan.alarmed
    assert audited.skip_evidence and not alarmed.skip_evidence


def test_weights_make_up_for_what_is_seen_rarely():
    whole = list(play(controller(audit_trivial=0.4), pool, 120, knows_the_kind))[1:]
    estimate = gain_of(verdicts_on(groups(whole)))
    rolled = [r for step in whole for r in step]
    kept = [r for r in rolled if not r.group.plan.would_skip]
    signal = sum(r.mixed for r in kept) / sum(r.mixed for r in rolled)
    tokens = sum(r.tokens for r in kept) / sum(r.tokens for r in rolled)
    assert estimate.signal_kept == pytest.approx(signal, abs=0.03)
    assert estimate.tokens_kept == pytest.approx(tokens, abs=0.03)
    assert sum(g.evidence_weight for g in groups(whole)) == pytest.approx(len(rolled), rel=0.05)


def test_revisits_change_no_other_prompt():
    """Prompts of one rollout are drawn each for itself."""
    plain = groups(play(controller(), pool, 10, knows_the_kind))
    more = groups(play(controller(audit_trivial=0.5), pool, 10, knows_the_kind))
    pairs = list(zip(plain, more, strict=True))
    assert all(a.plan == b.plan for a, b in pairs if b.plan.skip_kind != "trivial")
    assert all(b.plan.audited for a, b in pairs if a.plan.audited)
    assert any(b.plan.revisited for _, b in pairs)


@pytest.mark.parametrize("bound", [0.3, 0.5, 1.0])
def test_no_more_than_the_bound_is_skipped(bound):
    """The gate would skip two thirds of the prompts, of which a tenth is audited."""
    steps = list(play(controller(max_skipped=bound), pool, 60, knows_the_kind))[5:]
    share = np.mean([g.skipped for g in groups(steps)])
    assert share == pytest.approx(min(bound, 0.9 * 16 / 28), abs=0.03)


def test_a_skill_that_is_lost_comes_back():
    """Trivial prompts fall to a pass rate of two thirds while they are skipped, and recover."""

    def fades(step):
        return families(trivial=0.66 if 30 < step <= 60 else 0.998)

    wary = controller(alarm=0.15, audit_trivial=0.2)
    steps = list(play(wary, fades, 110, knows_the_kind))
    alarmed = np.array([control_metrics([r.group for r in s])["gate/alarm"] for s in steps])
    assert not alarmed[:30].any()
    assert (alarmed[45:60] > 0.1).all()
    assert not alarmed[80:].any()
    let_through = [g for g in groups(steps) if g.plan.alarmed]
    assert {g.plan.skip_kind for g in let_through} == {"trivial"}
    assert all(g.evidence_weight == 1 for g in let_through)
    quiet = groups(play(controller(audit_trivial=0.2), fades, 60, knows_the_kind))
    assert not any(g.plan.alarmed for g in quiet)


def test_hopeless_prompts_that_become_learnable_are_let_through():
    def learns(step):
        return families(hopeless=0.001 if step <= 20 else 0.4)

    steps = list(play(controller(alarm=0.15), learns, 60, knows_the_kind))
    assert {g.plan.skip_kind for g in groups(steps[50:]) if g.plan.alarmed} == {"hopeless"}


BY_FAMILY = {
    "counts": {"_target_": "masa.algorithm.gates.CountsGate", "key": ["family"]},
    "value": {
        "_target_": "masa.algorithm.value_gate.ValueGate", "key": ["family"], "group_size": G,
        "min_evidence": 12, "window": 64, "min_kept": 0.9,
    },
}  # fmt: skip


@pytest.mark.parametrize("gate", BY_FAMILY)
@pytest.mark.parametrize(("name", "rate"), [("trivial0", 0.66), ("hopeless0", 0.4)])
def test_what_changes_for_one_value_of_the_key_alone_is_let_through_by_its_past(gate, name, rate):
    """One family of eight is too little for the alarm of its kind. The predictions stay as they
    were."""

    def changes(step):
        fresh = families()
        if step > 25:
            fresh = [f if f.name != name else Family(name, rate, 20) for f in fresh]
        return fresh

    control = {"alarm": 0.15, "audit_trivial": 0.2, "audit_hopeless": 0.2}
    steps = list(play(controller(gate=BY_FAMILY[gate], **control), changes, 65, knows_the_kind))

    def skipped(steps, like):
        chosen = [r for step in steps for r in step if like(r.family.name)]
        return np.mean([r.group.plan.would_skip for r in chosen])

    others = [f.name for f in families() if f.name != name and f.name[0] == name[0]]
    assert skipped(steps[15:25], name.__eq__) > 0.9
    assert skipped(steps[45:], name.__eq__) < 0.1
    assert skipped(steps[15:], others.__contains__) > 0.9
    assert not any(g.plan.alarmed for g in groups(steps))
    of_family = [r.group for step in steps[25:] for r in step if r.family.name == name]
    let_through = next(i for i, g in enumerate(of_family) if not g.plan.would_skip)
    # the alarm waits for min_evidence=12 outcomes
    assert sum(not g.skipped for g in of_family[:let_through]) <= 4


def test_the_alarm_by_hand():
    def seen(rate, kind="trivial"):
        decided = plan(would_skip=True, skip_kind=kind)
        return group([i < 8 * rate for i in range(8)], decided=decided)

    alarm = Alarm(limit=0.1, window=4)
    alarm.add([seen(0.75)] * 3)
    assert not alarm.raised  # too few
    alarm.add([seen(0.75), *[seen(0.0, "hopeless")] * 4, *[seen(0.5, "")] * 4])
    assert alarm.raised == {"trivial"}
    alarm.add([seen(1.0)] * 3)
    assert alarm.raised == {"trivial"}  # outcomes of before do not count
    alarm.add([seen(1.0)])
    assert not alarm.raised
    alarm.add([seen(1.0), seen(0.0), seen(1.0), seen(1.0)])  # .25 on average, give or take .25
    assert not alarm.raised


def test_resumed_it_decides_as_before():
    settings = {"alarm": 0.1, "audit_trivial": 0.3, "max_skipped": 0.4}

    def fades(step):
        return families(trivial=0.66 if step > 6 else 0.998)

    whole = list(play(controller(**settings), fades, 30, knows_the_kind))
    first, second = controller(**settings), controller(**settings)
    list(play(first, fades, 15, knows_the_kind))
    second.load_state_dict(first.state_dict())
    again = groups(play(second, fades, 30, knows_the_kind, first=16))
    assert [g.plan for g in again] == [g.plan for g in groups(whole[15:])]
    assert any(g.plan.alarmed for g in again) and any(g.plan.revisited for g in again)


def test_the_accuracy_of_what_is_skipped():
    def seen(correct, kind, share, skip=True):
        return group(
            correct,
            decided=plan(
                would_skip=skip,
                skip_kind=kind,
                gate_active=True,
                audited=True,
                full_probability=share,
            ),
        )

    done = [
        seen((True, True), "trivial", 0.5), seen((True, False), "trivial", 0.5),
        seen((False, False), "hopeless", 0.1), seen((True, False), "", 1, skip=False),
    ]  # fmt: skip
    metrics = control_metrics(done)
    assert metrics["gate/skipped_accuracy/trivial"] == pytest.approx(0.75)
    assert metrics["gate/skipped_accuracy/hopeless"] == 0
    assert metrics["gate/skipped_accuracy"] == pytest.approx((2 * 1 + 2 * 0.5) / (2 + 2 + 10))


def test_what_a_gate_expects():
    says = [prediction(6), prediction(None), prediction(8)]
    assert PredictionGate().expected_pass_rate(prompt(), says) == pytest.approx(7 / 8)
    assert PredictionGate().expected_pass_rate(prompt(), [prediction(None)]) is None
    counts, history = CountsGate(), HistoryGate()
    for gate in (counts, history):
        assert gate.expected_pass_rate(prompt(), ()) is None
        gate.observe([group((True, False)), group((True, True))])
    assert counts.expected_pass_rate(prompt(), ()) == 0.75
    assert history.expected_pass_rate(prompt(), ()) == 1

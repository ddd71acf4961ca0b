"""The probability of the right answer, against a simulation of the model behind it."""

import numpy as np
import pytest

from masa.inference.confidence import (
    Prior,
    accuracy_in_the_end,
    accuracy_of_votes,
    gains,
    right_answer,
)

PRIORS = [Prior(1.0, 1.0, 4.0), Prior(3.0, 1.0, 2.0), Prior.of(0.25, 4.0, 4.0)]


def simulated(prior, n, draws, seed=0):
    """Answers of n samples per draw: 0 the right one, else a wrong one numbered from 1."""
    rng = np.random.default_rng(seed)
    for p in rng.beta(prior.a, prior.b, draws):
        wrong, answers = [], []
        for _ in range(n):
            if rng.random() < p:
                answers.append(0)
                continue
            new = rng.random() * (len(wrong) + prior.scatter) < prior.scatter
            wrong.append(max(wrong, default=0) + 1 if new else wrong[rng.integers(len(wrong))])
            answers.append(wrong[-1])
        yield answers


def seen(answers):
    """Samples per answer in the order in which the answers came, and the right one's place."""
    order = list(dict.fromkeys(answers))
    right = order.index(0) if 0 in order else len(order)
    return tuple(answers.count(answer) for answer in order), right


@pytest.mark.parametrize("prior", PRIORS)
def test_probabilities_are_the_frequencies_of_a_simulation(prior):
    tally = {}
    for answers in simulated(prior, 4, 40_000):
        counts, right = seen(answers)
        tally.setdefault(counts, np.zeros(len(counts) + 1))[right] += 1
    compared = 0
    for counts, hits in tally.items():
        if hits.sum() < 1000:
            continue
        expected = np.array(right_answer(counts, 0, prior))
        error = np.sqrt(expected * (1 - expected) / hits.sum())
        assert (np.abs(hits / hits.sum() - expected) <= 4 * error + 1e-3).all(), counts
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("prior", PRIORS)
def test_accuracy_of_votes_is_that_of_a_simulation(prior):
    n, draws = 5, 20_000
    hits = np.zeros(n)
    for answers in simulated(prior, n, draws, seed=1):
        for k in range(1, n + 1):
            counts, right = seen(answers[:k])
            hits[k - 1] += right == counts.index(max(counts))
    assert accuracy_of_votes(prior, n) == pytest.approx(hits / draws, abs=0.03)


def test_one_sample_is_as_probable_as_predicted():
    for rate in (0.1, 0.5, 0.9):
        prior = Prior.of(rate, 4.0, 4.0)
        assert right_answer((1,), 0, prior)[0] == pytest.approx(rate)
        assert accuracy_of_votes(prior, 1)[0] == pytest.approx(rate, abs=0.03)


def test_what_is_known_of_the_pass_rate_moves_as_it_must():
    flat = Prior.of(None, 4.0, 4.0)
    assert flat == Prior(1.0, 1.0, 4.0)
    agreeing = [right_answer((k,), 0, flat)[0] for k in (1, 2, 3, 4)]
    assert agreeing == sorted(agreeing) and agreeing[-1] > 0.95
    # samples without an answer say that the problem is hard
    assert right_answer((2,), 3, flat)[0] < right_answer((2,), 0, flat)[0]
    hopeless, easy = Prior.of(0.0, 4.0, 4.0), Prior.of(1.0, 4.0, 4.0)
    assert accuracy_in_the_end((1,), 0, hopeless, 0.3) < 0.05
    assert accuracy_in_the_end((1,), 0, easy, 0.3) > 0.95
    assert sum(right_answer((3, 2, 1), 1, flat)) == pytest.approx(1)


def test_gains_are_concave_and_add_up():
    values = [0.5, 0.5, 0.6, 0.61, 0.7]
    steps = gains(values)
    assert steps == sorted(steps, reverse=True)
    assert sum(steps) == pytest.approx(values[-1])
    assert np.cumsum(steps) == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7])

"""Dataclasses that hold arrays compare by content."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from builders import group

from masa.types import Completion, Request, Sample

ARRAYS = [
    (Completion((1, 2), (-0.5, -1.5), True, 3), "token_ids", (1, 3)),
    (Completion((1, 2), (-0.5, -1.5), True, 3), "logprobs", (-0.5, -1.25)),
    (Request((1, 2), (7,), 5), "prompt_ids", (1, 2, 3)),
    (Sample((1,), (2, 3), (0.0, 0.0), 1.0, "bc"), "prompt_ids", (2,)),
]


def test_equality_and_hash_are_those_of_the_content():
    for made, name, other in ARRAYS:
        copy = pickle.loads(pickle.dumps(made))
        changed = replace(made, **{name: other})
        assert copy == made and hash(copy) == hash(made) and copy is not made
        assert changed != made and len({made, copy, changed}) == 2
        assert replace(changed, **{name: getattr(made, name).tolist()}) == made


def test_groups_are_equal_by_content():
    made = group()
    assert pickle.loads(pickle.dumps(made)) == made != replace(made, meta_prompt_ids=())


def test_fields_are_compact_arrays():
    completion = Completion([1, 2], [-0.1, -0.2], True, 0)
    assert completion.token_ids.dtype == np.int32 and completion.logprobs.dtype == np.float32
    # what an engine has as such an array is not copied
    assert Completion(completion.token_ids, [0, 0], True, 0).token_ids is completion.token_ids


def test_a_log_prob_for_each_token():
    with pytest.raises(ValueError, match="2 tokens and 1 log-probs"):
        Completion((1, 2), (-0.5,), True, 0)


def test_ranks_exchange_eight_bytes_for_each_token():
    completion = Completion(range(10_000), [-0.5] * 10_000, True, 0)
    assert len(pickle.dumps([completion])) < 8 * 10_000 + 1000


def test_other_types_differ():
    assert Completion((), (), True, 0) != Sample((), (), (), 0.0, "bc")
    assert Completion((), (), True, 0) != ((), (), True, 0)

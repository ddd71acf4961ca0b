"""What masa-solve prints below its table."""

import pandas as pd

from masa.solve import as_text


def answers(**columns):
    rows = {
        "id": ["a", "b"], "problem": ["1 + 1", "2 + 2"], "answer": ["2", None],
        "confidence": [0.5, 0.0], "abstained": [False, False], "votes": [1, 0], "samples": [2, 2],
        "tokens": [10, 20], "meta_tokens": [0, 0], "parsed": [None, None],
    }  # fmt: skip
    return as_text(pd.DataFrame(rows | columns), None)


def test_the_share_of_predictions_that_could_be_read():
    """Few of them: the policy decides by what is left."""
    asked = answers(meta_tokens=[4, 6], parsed=[0.0, 0.5]).splitlines()[-1]
    assert asked == (
        "2 problems, 4 samples, 40 tokens; 10 of them for predictions, of which 25% could be read."
    )
    assert answers().splitlines()[-1] == "2 problems, 4 samples, 30 tokens."

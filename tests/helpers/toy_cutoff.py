"""A cutoff that always cuts."""

from masa.algorithm.cutoffs import Cutoff


class FixedCutoff(Cutoff):
    """The same limit for every prompt."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def tokens(self, prompt, predictions):
        return self.limit

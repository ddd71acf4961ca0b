"""Which of several processes speaks for all, before they know of each other."""

from __future__ import annotations

import os

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Of torchrun, Lightning, SLURM and jsrun, in the order in which Lightning reads them."""


def first_rank() -> bool:
    """True for the first rank, and where there is one process."""
    ranks = [os.environ[name] for name in RANK_VARIABLES if name in os.environ]
    return not ranks or int(ranks[0]) == 0

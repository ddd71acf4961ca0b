"""Run directories -> tables and figures. Imports no torch, no lightning, no engine."""

from masa.analysis.load import Run, RunError, find_runs, load_run
from masa.analysis.seeds import load_sweep

__all__ = ["Run", "RunError", "find_runs", "load_run", "load_sweep"]

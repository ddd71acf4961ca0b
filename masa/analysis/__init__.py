"""Run directories -> tables and figures. Imports no torch, no lightning, no engine."""

from masa.analysis.compare_methods import load_sweep
from masa.analysis.load import Run, RunError, find_runs, load_run

__all__ = ["Run", "RunError", "find_runs", "load_run", "load_sweep"]

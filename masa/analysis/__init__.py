"""Run directories -> tables and figures. Imports no torch, no lightning, no engine."""

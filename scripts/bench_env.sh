#!/bin/sh
# Makes $VENV_TRL, where TRL lives for `make bench`: the pins of the project's own environment and TRL on top, so that
# both sides of a comparison run the same PyTorch, transformers and vLLM.
set -eu
PYTHON=${PYTHON:-python3}
VENV_TRL=${VENV_TRL:-.venv-trl}
export PIP_DISABLE_PIP_VERSION_CHECK=1

[ -x "$VENV_TRL/bin/python" ] || "$PYTHON" -m venv "$VENV_TRL"
pip="$VENV_TRL/bin/python -m pip install --quiet"
echo "make bench-env: installing TRL beside PyTorch and vLLM for the CPU into $VENV_TRL (about 2 minutes)"
# shellcheck disable=SC2086
$pip ${PIP_ARGS:-} torch==2.13.0
# pycosat comes with reasoning-gym alone, which is not used here
$pip --no-deps -r requirements.txt trl==1.16.0

#!/bin/sh
# Makes $VENV. PIP_ARGS goes to the installation of PyTorch, for instance an index of CPU builds.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TORCH="torch==2.13.0"
# of reasoning-gym; has no wheels
PYCOSAT="pycosat==0.6.6"

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
    echo "make setup: Python 3.11 or 3.12 is needed, $PYTHON is $("$PYTHON" -V 2>&1); try PYTHON=python3.12 make setup" >&2
    exit 1
}
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv "$VENV"
export PIP_DISABLE_PIP_VERSION_CHECK=1
pip="$VENV/bin/python -m pip install --quiet"

if [ "$(uname -s)" = Linux ] && command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    echo "make setup: NVIDIA GPU found, installing PyTorch and vLLM with CUDA into $VENV"
    $pip "$TORCH" vllm==0.32.0
    $pip -e '.[dev]'
elif [ "$(uname -s)" = Linux ]; then
    echo "make setup: no GPU, installing PyTorch and vLLM for the CPU into $VENV (three to five minutes)"
    # shellcheck disable=SC2086
    $pip ${PIP_ARGS:-} "$TORCH"
    $pip --no-deps -r requirements.txt
    $pip --no-deps "$PYCOSAT" ||
        echo "make setup: pycosat was not built, so task=gym is left out (apt install gcc python3-dev, then make -B setup)" >&2
    $pip --no-deps --no-build-isolation -e .
else
    echo "make setup: vLLM has no build for $(uname -s); installing without it: run with engine=hf"
    $pip "$TORCH"
    $pip -e '.[dev]'
fi

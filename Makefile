# make setup | train | test | test-slow | test-resume | bench | lint. Each does what it needs, and nothing twice.
PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs/train

BIN := $(VENV)/bin
READY := $(VENV)/.masa-ready

.PHONY: setup train test test-slow test-resume bench lint clean-train

setup: $(READY)

$(READY): requirements.txt pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/timed.sh $(VENV) "setup" sh scripts/setup.sh
	@touch $@

# The embedded experiment end to end. A part that is done is not done again: `make clean-train` forgets.
train: $(RUNS)/report.md
	@awk '/^## /{show=/^## Results/} show' $(RUNS)/report.md
	@cat $(VENV)/times.txt $(RUNS)/times.txt
	@echo "picture: $(RUNS)/figures/overview.png   report: $(RUNS)/report.md"

$(RUNS)/report.md: $(RUNS)/grpo/report.md $(RUNS)/masa_efficient/report.md
	@sh scripts/timed.sh $(RUNS) "report" $(BIN)/masa-report $(^D) --out $(RUNS)

$(RUNS)/%/report.md: $(RUNS)/.warm
	@sh scripts/timed.sh $(RUNS) "$*" $(BIN)/masa-train experiment=arithmetic algorithm=$* \
		ckpt=auto hydra.run.dir=$(RUNS)/$*

$(RUNS)/.warm: $(READY)
	@mkdir -p $(RUNS)
	@sh scripts/timed.sh $(RUNS) "warm start" $(BIN)/masa-warmstart
	@touch $@

clean-train:
	rm -rf $(RUNS)

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not resume"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# One run as it is, the same run killed at five random moments: the results must not differ in a bit.
test-resume: $(READY)
	$(BIN)/python -m pytest -m resume -s

bench: $(READY)
	$(BIN)/python experiments/speed/verifiers.py
	$(BIN)/python experiments/speed/logprobs.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

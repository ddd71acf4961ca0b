# make setup | train | reproduce | map | ablations | test | test-slow | test-resume | bench | bench-env | lint | docs | docs-serve | weights.
# Each does what it needs, and nothing twice.
PYTHON ?= python3
VENV ?= .venv
VENV_TRL ?= .venv-trl
RUNS ?= runs/train
CLAIM ?= runs/claim
# files of conf/experiment/claim: families/grpo ...
METHODS ?= $(patsubst conf/experiment/claim/%.yaml,%,$(sort $(wildcard conf/experiment/claim/*/[!_]*.yaml)))
SEEDS ?= 0 1 2 3 4
# mixes of the task: when does it pay?
MAP := $(patsubst conf/experiment/claim/%.yaml,%,$(sort $(wildcard conf/experiment/claim/map/*/*.yaml)))
# test files that run at a time; each takes a core and up to 4 GB
WORKERS ?= 2
ABLATION ?= runs/ablation
# files of conf/experiment/ablation: family alone ...
ABLATIONS ?= $(basename $(notdir $(wildcard conf/experiment/ablation/[!_]*.yaml)))
ABLATION_SEEDS ?= 0 1 2

BIN := $(VENV)/bin
READY := $(VENV)/.masa-ready

.PHONY: setup train reproduce map ablations claim-left ablations-left test test-slow test-resume bench bench-env lint docs docs-serve clean-train weights

setup: $(READY)

$(READY): requirements.txt pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/timed.sh $(VENV) "setup" sh scripts/setup.sh
	@touch $@

# Two runs at a time but on a GPU: vLLM measures its memory as if it were alone there.
TOGETHER := $(shell nvidia-smi -L >/dev/null 2>&1 || echo -j2)

# The built-in experiment end to end. A part that is done is not done again: `make clean-train` forgets.
train: $(READY)
	@$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,$(TOGETHER)) $(RUNS)/report.md
	@awk '/^## /{show=/^## Results/} show' $(RUNS)/report.md
	@cat $(VENV)/times.txt $(RUNS)/times.txt
	@echo "picture: $(RUNS)/figures/overview.png   report: $(RUNS)/report.md"

$(RUNS)/report.md: $(RUNS)/grpo/report.md $(RUNS)/masa_cloned/report.md
	@sh scripts/timed.sh $(RUNS) "report" $(BIN)/masa-report $(^D) --out $(RUNS)

$(RUNS)/%/report.md: | $(READY)
	@mkdir -p $(RUNS)
	@OMP_NUM_THREADS=1 TQDM_POSITION=$(if $(filter grpo,$*),0,1) sh scripts/timed.sh $(RUNS) "$*" $(BIN)/masa-train \
		experiment=arithmetic$(if $(filter grpo,$*),,_cloned) algorithm=$* \
		ckpt=auto hydra.run.dir=$(RUNS)/$*

# The claim: every run of conf/experiment/claim over the seeds. What is done is skipped, a run that was stopped goes on, and
# `make -k` goes on with the others after one that failed. `make -j2 reproduce` runs two at a time, about 8 minutes a
# run on 2 cores: the seconds of the claim are those of runs that share the machine.
CLAIM_RUNS := $(foreach seed,$(SEEDS),$(foreach method,$(METHODS),$(CLAIM)/$(method)-seed$(seed)/report.md))
CLAIM_RESULTS := $(patsubst %,$(CLAIM)/%results.json,$(sort $(dir $(METHODS))))

reproduce: claim-left $(CLAIM_RESULTS)

MAP_SEEDS ?= 0 1

map:
	@$(MAKE) --no-print-directory reproduce SEEDS="$(MAP_SEEDS)" METHODS="$(MAP)"

# METHOD-seedSEED of conf/experiment/$(1)
one-run = OMP_NUM_THREADS=1 $(BIN)/masa-train experiment=$(1)/$(subst -seed, seed=,$*) ckpt=auto hydra.run.dir=$(@D)

claim-left: $(READY)
	@$(BIN)/python scripts/remaining_runs.py --minutes 4 $(CLAIM_RUNS)

$(CLAIM_RESULTS): $(CLAIM_RUNS)
	$(BIN)/masa-report $(@D) --out $(@D)
	@rm -f $(@D)/results.jsonl
	$(BIN)/python experiments/claim/results.py $(@D) --out $@

$(CLAIM)/%/report.md: | $(READY)
	$(call one-run,claim)

# Two at a time with -j2. The page takes all of them.
ABLATION_RUNS := $(foreach seed,$(ABLATION_SEEDS),$(foreach method,$(ABLATIONS),$(ABLATION)/$(method)-seed$(seed)/report.md))

ablations: ablations-left $(ABLATION_RUNS)

ablations-left: $(READY)
	@$(BIN)/python scripts/remaining_runs.py --minutes 3 $(ABLATION_RUNS)

$(ABLATION)/%/report.md: | $(READY)
	$(call one-run,ablation)

# The first weights that come with the package, after a change of the built-in task: about 8 minutes.
weights: $(READY)
	$(BIN)/python scripts/ship_weights.py

clean-train:
	rm -rf $(RUNS)

# a file is one worker's, for its fixtures; in order the long ones, of e2e, come first
IN_ORDER := --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not resume" -n $(WORKERS) $(IN_ORDER) --durations=25

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow -n $(WORKERS) $(IN_ORDER) --durations=25

# One run as it is, the same run killed at five random moments: the results must not differ in a bit.
test-resume: $(READY)
	$(BIN)/python -m pytest -m resume -s

# What a step costs, beside TRL and beside the bare engine: on an idle machine, more than an hour. What fails stops
# nothing else, and what is measured is published. BENCH_ARGS=--quick is a smoke test that keeps and publishes nothing.
BENCH := experiments/speed
BENCH_PROGRAMS := "compare_trl.py --trl-python $(VENV_TRL)/bin/python" step_time.py scaling.py startup.py \
	verifier_time.py logprob_memory.py adapter_sync.py
bench: $(READY) $(VENV_TRL)/.ready
	@failed=; for program in $(BENCH_PROGRAMS); do \
		$(BIN)/python $(BENCH)/$$program $(BENCH_ARGS) || failed="$$failed $${program%% *}"; \
	done; \
	case " $(BENCH_ARGS) " in *" --quick "*) ;; *) \
		{ $(BIN)/python $(BENCH)/speed_report.py runs/bench && \
			$(BIN)/python scripts/publish.py runs/bench $(BENCH)/README.md; } || failed="$$failed report" ;; \
	esac; \
	[ -z "$$failed" ] || { echo "not measured in full:$$failed" >&2; exit 1; }

bench-env: $(VENV_TRL)/.ready

$(VENV_TRL)/.ready: $(READY) scripts/bench_env.sh
	PYTHON="$(BIN)/python" VENV_TRL="$(VENV_TRL)" sh scripts/bench_env.sh
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The site, build/docs; a broken link, a missing anchor or file fails. -n: also names in docstrings.
docs: $(READY)
	$(BIN)/python -m sphinx -q -E -W --keep-going -n -c docs -d build/doctrees . build/docs
	@echo "build/docs/index.html"

docs-serve: docs
	$(BIN)/python -m http.server --directory build/docs --bind 127.0.0.1 8000

# Everything starts from a bare Python 3.11 and builds its own environment in .venv.
#   make reproduce [PRESET=sim-had] [SEED=0]   the paper in miniature; ends by printing the table; PRESET=sim-urgen: real clips
#   make reproduce PROCESSES=2                 two processes share the work of two cores (docs: 13_cluster)
#   make reproduce PRESET=had-small ROOT=folder  a study on disk; also SOURCE=, SUBJECTS=, TARGETS=, ANSWERS= (docs: 03l_experiment)
#   make reproduce SET="stage1.epochs=1 video.llm_steps=40"   with settings of the preset changed; controls and ablation take ROOT= and SET= too
#   make reproduce PRESET=urgen-small ROOT=folder TASK= SPACE= DERIVATIVES= COLUMNS=stim_file=stimID SKIP=runs  a study of one's own (docs: 09c_own_study)
#   make reproduce PRESET=had ROOT=folder WEIGHTS=folder   with the models of the paper, on a GPU; also DEVICE=
#   make ablation [PRESET=sim-had] [SEEDS=0,1,2]  the same with one part changed at a time; goes on where it stopped; PRESET=haxby: on measured brains
#   make controls [PRESET=sim-had] [SEED=0]    every control, earlier decoder and ceiling on the same trials; goes on where it stopped
#   make real [SEED=0] [PROCESSES=2]           the same modules on measured brains: Haxby et al. 2001, one slice; all twelve folds
#   make film ROOT=folder                      seventeen people who watched a film (Chen et al. 2017); brainllm fetch folder --kind sherlock
#   make captions ROOT=folder                  what one person's caption of a clip gets against another's
#   make starts                                does pretraining help? random, simulated rest, HCP; three seeds each, with sim-had's study
#   make test                                  every notebook, then pytest
#   make bench                                 parts beside the plain way to do the same, timed here, in data/costs
#   make torture [EXAMPLES=90] [SEED=0]       thousands of made inputs for every reader, and runs killed at random moments
#   make coverage                              lines and branches that the pages and tests run; goes on where it stopped
#   make mutants [MUTANTS=40]                  rooms with one thing changed: does a page or a test notice?
#   make matrix                                Python 3.11 to 3.13, lowest and highest versions of what is needed
#   make sbom                                  a bill of materials of .venv, CycloneDX, in dist/sbom.json
#   make faults                                known faults of the packages in constraints.txt, where a service can be asked
#   make docs                                  the site, from the committed notebooks, in _docs
#   make notebooks                             run every notebook and keep its outputs and results
#   make readme                                README.md from nbs/index.ipynb
#   make TORCH='torch OPTIONS' test            another build of torch in .venv, as for CPU; the options are those of PyTorch's page
#   make clean                                 remove what is built in seconds;  make pristine: .venv and _runs as well
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PRESET ?= sim-had
SEED ?= 0
SEEDS ?= 0,1,2
ROOT ?=
SOURCE ?=
SUBJECTS ?=
TARGETS ?=
# These six from the command line alone: a shell has its own COLUMNS, other tools their own SKIP.
TASK :=
SPACE :=
DERIVATIVES :=
COLUMNS :=
SKIP :=
SET :=
PROCESSES :=
WEIGHTS ?=
ANSWERS ?=
DEVICE ?=
# What was typed reaches the shell through the environment, letter by letter: a quote in it ends nothing, a $ names nothing.
GIVEN := PRESET SEED SEEDS ROOT SOURCE SUBJECTS TARGETS TASK SPACE DERIVATIVES COLUMNS SKIP WEIGHTS ANSWERS DEVICE SET PROCESSES
$(foreach name,$(GIVEN),$(eval export GIVEN_$(name) = $$(value $(name))))
# -r root FOLDER and so on, of those that were typed, as "$${study[@]}"
STUDY := study=(); options=(); for name in ROOT SOURCE SUBJECTS TARGETS TASK SPACE DERIVATIVES COLUMNS SKIP WEIGHTS ANSWERS DEVICE SET; do given=GIVEN_$$name; \
  [ -z "$${!given}" ] || { study+=(-r "$${name,,}" "$${!given}"); options+=("--$${name,,}" "$${!given}"); }; done
STAGES := 04_stage1 05_stage2 06_evaluate 07_results
HF_HUB_OFFLINE ?= 1
export HF_HUB_OFFLINE
export JUPYTER_PATH := $(CURDIR)/.venv/share/jupyter
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Threads that wait sleep instead of spinning, so that another busy process on the machine slows this one little.
export OMP_WAIT_POLICY := PASSIVE
# Libraries are compiled once, whatever the shell says of it; every process would compile them anew.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
WHOLE := .venv/.whole
# The stamp is written last and holds the folder it was made in: a half-built or moved .venv is built again.
ifneq ($(shell cat $(WHOLE) 2>/dev/null),$(CURDIR))
.PHONY: $(WHOLE)
endif

EXAMPLES ?= 90
MUTANTS ?= 40
.PHONY: help known reproduce ablation controls real film captions starts test bench torture coverage mutants matrix sbom faults checks docs notebooks readme clean pristine
help:
	@sed -n 's/^#   //p' Makefile

$(WHOLE): constraints.txt parts.txt settings.ini setup.py tools/environment.sh
	@bash tools/environment.sh

# On whatever Python there is, so that a mistyped name costs no environment.
known:
	@for python in $(BIN)/python "$${PYTHON:-python3.11}" python3 python; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  PYTHONPATH=. exec "$$python" tools/known_preset.py "$$GIVEN_PRESET" "$$GIVEN_SEED" "$$GIVEN_ROOT" "$$GIVEN_SET"; done

reproduce: known $(WHOLE)
	@$(STUDY); [ -z "$$GIVEN_PROCESSES" ] || $(BIN)/python -m brainllm reproduce --preset "$$GIVEN_PRESET" --seed "$$GIVEN_SEED" "$${options[@]}" --processes "$$GIVEN_PROCESSES" > /dev/null
	@books="_runs/$$GIVEN_PRESET/notebooks"; mkdir -p "$$books"; $(STUDY); \
	n=0; for s in $(STAGES); do \
	  n=$$((n+1)); begin=$$SECONDS; kept="$$books/$$s.ipynb"; \
	  key="seed $$GIVEN_SEED $${study[*]} $$(cat nbs/$$s.ipynb $$(find brainllm -name '*.py' | LC_ALL=C sort) constraints.txt | sha256sum)"; \
	  if [ -f "$$kept" ] && [ -f "_runs/$$GIVEN_PRESET/result.json" ] && [ "$$(cat "$$kept.key" 2>/dev/null)" = "$$key" ]; then echo "[$$n/4] $$s: nothing that it depends on has changed, so $$kept stands"; continue; fi; \
	  rm -f "$$kept.key"; echo "[$$n/4] papermill nbs/$$s.ipynb -p preset $$GIVEN_PRESET -p seed $$GIVEN_SEED $${study[*]}"; \
	  $(BIN)/papermill nbs/$$s.ipynb "$$kept" -k python3 -p preset "$$GIVEN_PRESET" -p seed "$$GIVEN_SEED" "$${study[@]}" \
	    --no-progress-bar --log-level ERROR --stdout-file - --stderr-file -; \
	  echo "$$key" > "$$kept.key"; echo "[$$n/4] $$s: $$((SECONDS-begin)) s, kept as $$kept"; \
	done
	@$(BIN)/python -m brainllm table --preset "$$GIVEN_PRESET"

ablation: known $(WHOLE)
	@$(STUDY); if [ "$$GIVEN_PRESET" = haxby ]; then $(BIN)/python -m brainllm real --parts "$$GIVEN_SEEDS"; \
	else $(BIN)/python -m brainllm ablation --preset "$$GIVEN_PRESET" --seeds "$$GIVEN_SEEDS" "$${options[@]}"; fi

controls: known $(WHOLE)
	@$(STUDY); $(BIN)/python -m brainllm controls --preset "$$GIVEN_PRESET" --seed "$$GIVEN_SEED" "$${options[@]}"

real: $(WHOLE)
	@$(BIN)/python -m brainllm real --seed "$$GIVEN_SEED" $(if $(PROCESSES),--processes "$$GIVEN_PROCESSES")

film captions: $(WHOLE)
	@$(BIN)/python -m brainllm real $@ --seed "$$GIVEN_SEED" --root "$$GIVEN_ROOT" $(if $(SET),--set "$$GIVEN_SET")

starts: $(WHOLE)
	@$(BIN)/python -m brainllm real --starts

test: export OMP_NUM_THREADS := 1
test: $(WHOLE)
	@echo "[1/2] nbdev_test: every notebook, all but its slow cells"
	@$(BIN)/nbdev_test --n_workers 2 --do_print --timing
	@echo "[2/2] pytest, two test files at a time"
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python -m pytest -q -rs -n 2 --dist loadfile tests

bench: $(WHOLE)
	@$(BIN)/python -m brainllm bench here

torture: export OMP_NUM_THREADS := 1
torture: $(WHOLE)
	@$(BIN)/python tests/torture.py $(EXAMPLES) "$$GIVEN_SEED"
	@$(BIN)/python tests/torture_kills.py 200

checks: $(WHOLE)
	@bash tools/checks.sh

coverage mutants: export OMP_NUM_THREADS := 1
coverage: checks
	@.venv/checks/bin/python tests/covered.py

mutants: coverage
	@.venv/checks/bin/python tests/mutants.py $(MUTANTS)

matrix: $(WHOLE)
	@$(BIN)/python tools/matrix.py

sbom: checks
	@mkdir -p dist; .venv/checks/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible -o dist/sbom.json $(BIN)/python
	@$(BIN)/python -c 'import json; print("dist/sbom.json:", len(json.load(open("dist/sbom.json"))["components"]), "components")'

faults: checks
	@.venv/checks/bin/python tools/known_faults.py

docs: $(WHOLE)
	@$(BIN)/python tools/docs.py

notebooks: $(WHOLE)
	@$(BIN)/python tools/notebooks.py
	@$(BIN)/python tools/readme.py

readme: $(WHOLE)
	@$(BIN)/python tools/readme.py

clean:
	@rm -rf _proc _docs build dist *.egg-info .pytest_cache; find nbs brainllm tests tools -name __pycache__ -prune -exec rm -rf {} +
	@echo "removed the site, builds and caches; .venv and _runs are kept (make pristine removes them)"

pristine: clean
	@rm -rf .venv _runs

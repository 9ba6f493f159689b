# make demo, make test, make check, make docs: the four commands. Each makes .venv first, or brings it up to date;
# make setup alone installs everything that a CPU can use.
# make test-long: what make test leaves out, slow tests and those with other servers and runtimes, which make peers installs.

PYTHON ?= python3
BIN := .venv/bin
DEMO_EXTRAS := export,cpu,openvino,images,report
EXTRAS := export,cpu,openvino,int8,images,report,tensorrt-rtx,triton,label,ray,serve,manifests,dev,docs
DEMO := out/demo
PYTEST := -m pytest -q --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PEERS := $(patsubst scripts/peers/%.txt,.peers/%/.complete,$(wildcard scripts/peers/*.txt)) .peers/node/.complete
APT := -q -o Acquire::Retries=1 -o Acquire::http::Timeout=30

# pip writes no bytecode: the demo's comes with the first import, and setup compiles all of it in several processes.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

.PHONY: setup demo check style types layers test fuzz peers test-long coverage browser cpp docs format figures sentences clean

setup: .venv/.complete

.venv/.demo: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rexport needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[$(DEMO_EXTRAS)]'
	@touch $@

.venv/.complete: .venv/.demo
	$(PIP) --editable '.[$(EXTRAS)]'
	@$(BIN)/python -m compileall -q -j 0 -x 'py3[0-9]+_' .venv/lib  # not what a library has for another version of Python
	@touch $@

demo: .venv/.demo  # has fewer extras than setup, and so is there sooner
	@mkdir -p $(DEMO)
	$(BIN)/rexport onnx resnet20 --weights bundled --force -o $(DEMO)/resnet20.onnx
	$(BIN)/rbench run $(DEMO)/resnet20.onnx --data fashion-mnist --limit 2000 --processes 3 --duration 0.5 -o $(DEMO)
	$(BIN)/rexport inspect $(DEMO)/resnet20.onnx
	@echo "the artifact is $(DEMO)/resnet20.onnx; try: $(BIN)/rexport predict $(DEMO)/resnet20.onnx IMAGE..."

check: style types layers

style: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

browser:  # for the tests of the page; without one they are skipped, and say so
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && \
		apt-get $(APT) update && apt-get $(APT) install --yes --no-install-recommends chromium chromium-driver; \
	} >/dev/null 2>&1 || echo "no Chromium here, and it cannot be installed: the page is not tested in a browser"

cpp: | browser  # the two share one apt-get; for the tests of the C++ headers; without a compiler and the libraries they are skipped, and say so
	@echo '#include <nlohmann/json.hpp>\n#include <cstdio>\n#include <jpeglib.h>\n#include <openssl/evp.h>' | g++ -E -x c++ - >/dev/null 2>&1 || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && \
		apt-get $(APT) update && apt-get $(APT) install --yes --no-install-recommends g++ nlohmann-json3-dev libjpeg-dev libssl-dev; \
	} >/dev/null 2>&1 || echo "no C++ compiler with nlohmann-json, libjpeg and OpenSSL here: the C++ headers are not tested"

test: setup  # with one process more than processors, because tests also wait; a file stays in one, the slowest files first
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target check docs browser cpp
	@$(BIN)/python -m compileall -q exporter runtimes benchmarks rexport scripts tests
	OMP_WAIT_POLICY=passive $(BIN)/python $(PYTEST) --numprocesses $$(($$(nproc) + 1)) -m 'not peers and not slow'

.peers/%/.complete: scripts/peers/%.txt
	@test -x .peers/$*/bin/python || $(PYTHON) -m venv .peers/$*
	.peers/$*/bin/python -m pip install --quiet --requirement $<
	@touch $@

.peers/node/.complete: scripts/peers/node/package.json scripts/peers/node/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

peers: $(PEERS)  # what clashes with .venv or is only compared with; without one, its tests are skipped and say so

test-long: setup browser cpp peers  # CI runs it after make test
	OMP_WAIT_POLICY=passive $(BIN)/python $(PYTEST) --numprocesses auto -m 'peers or slow'

SECONDS ?= 60
READERS ?=
SEED ?=

fuzz: setup  # hostile files for every reader, or for READERS="manifest onnx"; findings in out/fuzz, exit code 1
	$(BIN)/python -m scripts.fuzz --seconds $(SECONDS) --jobs $$(nproc) $(if $(SEED),--seed $(SEED)) $(READERS)

coverage: setup browser  # branches, in the processes that the tests start as well; takes several times as long
	@rm -rf out/coverage && mkdir -p out/coverage
	$(BIN)/coverage run $(PYTEST) --numprocesses auto --timeout 900; code=$$?; \
		$(BIN)/coverage combine -q && $(BIN)/coverage report && exit $$code

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  # the site in out/site; any warning, a broken link included, is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	$(BIN)/python -m scripts.docs.readability

figures: setup
	$(BIN)/python -m scripts.figures

sentences: setup  # writes the table that tests hold every message to
	$(BIN)/python -m scripts.sentences --write

clean:
	rm -rf .venv .peers out build dist *.egg-info

# make demo, make test, make check: the three commands. Each makes .venv first, or brings it up to date.

PYTHON ?= python3
BIN := .venv/bin
EXTRAS := export,cpu,openvino,int8,images,tensorrt-rtx,dev
DEMO := out/demo

.PHONY: setup demo check test format figures clean

setup: .venv/.complete

.venv/.complete: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rexport needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: setup
	@mkdir -p $(DEMO)
	$(BIN)/rexport onnx resnet20 --weights bundled --force -o $(DEMO)/resnet20.onnx
	$(BIN)/rbench run $(DEMO)/resnet20.onnx --data fashion-mnist -o $(DEMO)
	$(BIN)/rexport inspect $(DEMO)/resnet20.onnx
	@echo "the artifact is $(DEMO)/resnet20.onnx; try: $(BIN)/rexport predict $(DEMO)/resnet20.onnx IMAGE..."

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  # the files in their order: the long ones come first, which keeps all processes busy to the end
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

figures: setup
	$(BIN)/python -m benchmarks.figures

clean:
	rm -rf .venv out build dist *.egg-info

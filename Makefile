# Every target sets itself up: missing system packages by apt-get, Python packages into .venv.
.PHONY: demo test lint eval bench firmware format clean

PY := .venv/bin/python

demo: ## the whole loop on an emulated board
	@tools/setup.sh demo
	@.venv/bin/edgehmn demo

test: lint ## everything a newcomer runs, and CI
	@OPENBLAS_NUM_THREADS=1 .venv/bin/pytest -q -n auto --maxprocesses 4 --dist loadfile

lint:
	@tools/setup.sh test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) tools/check_types.py

DATA ?= data
eval: ## the figures of the README, on the files in DATA
	@tools/setup.sh demo
	@$(PY) tools/run.py bench.learning --data $(DATA)

bench: ## speed beside other runtimes, on this machine; BENCH="--runq PATH --gguf FILE" for more of them
	@tools/setup.sh demo
	@$(PY) tools/run.py bench.speed $(BENCH)

firmware: ## the firmware of every board
	@tools/setup.sh demo
	@for header in native/ports/*/*/board.h; do board=$$(basename $$(dirname $$header)); \
		.venv/bin/edgehmn build --target $$board -o build/firmware/$$board.elf || exit $$?; done

format:
	@tools/setup.sh test
	@$(PY) -m ruff check --fix . && $(PY) -m ruff format .

clean:
	rm -rf build .venv

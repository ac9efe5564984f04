# Each target sets up all that it needs, in .venv. Written for GNU make 3.81 (macOS) and later.

VENV := .venv
PYTHON := python3.13 python3.12 python3.11 python3
LAB_FLAGS :=
PYTEST_FLAGS := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
START := notebooks/00_start_here.ipynb

py := $(VENV)/bin/python
# An environment knows where it was made: after the folder was moved or renamed it is filled anew.
moved := $(shell [ "`cat $(VENV)/.folder 2>/dev/null`" = "`pwd -P`" ] || echo moved)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help lab test test-slow test-all test-exhaustive results trust bench notebooks traces instructor classroom site lint venv clean moved

help:
	@echo "make lab        install into $(VENV) and open JupyterLab at the start page"
	@echo "make test       install the test tools too and run the tests, some minutes"
	@echo "make test-slow  run the slow tests: kills, every notebook and panel in a browser"
	@echo "make test-all   run both; make test-exhaustive adds every bad value, section and training"
	@echo "make results    measure again the tables in data/results that the prose quotes"
	@echo "make trust      measure again which measures of the gap go with accuracy"
	@echo "make bench      measure what each part of a step costs: docs/speed.md, a quarter of an hour"
	@echo "                on a GPU: $(py) benchmarks/gpu.py writes docs/speed_gpu.md, in four minutes"
	@echo "make notebooks  execute the notebooks and store them with their pictures"
	@echo "make traces     record what the notebooks train, for the tier replay, and measure its seconds"
	@echo "make instructor write the notebooks with solutions, common answers and timetables: instructor/"
	@echo "make classroom  check that everything for a lesson works on this computer without a network"
	@echo "make site       write the course as pages to be read without a kernel: build/site"
	@echo "make lint       ruff and mypy"
	@echo "make venv       only make $(VENV), for example to put a CPU-only PyTorch into it first"
	@echo "make clean      delete $(VENV) and the tools' caches"

# The server listens on this machine only and asks for its token; it fetches no news and looks for no updates.
# JupyterLab runs as root, the usual user of a container, only with --allow-root.
lab: $(VENV)/.lab
	@set --; \
	[ "`id -u`" != 0 ] || set -- "$$@" --allow-root; \
	[ "`uname`" != Linux ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" ] || set -- "$$@" --no-browser; \
	JUPYTER_PREFER_ENV_PATH=1 $(py) -m jupyterlab \
	  --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="`pwd -P`" --LabApp.default_url="/lab/tree/$(START)" \
	  --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
	  --LabApp.extension_manager=readonly "$$@" $(LAB_FLAGS)

# One thread for each of the workers that share the tests.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(py) -m pytest -m "not slow and not exhaustive" $(PYTEST_FLAGS)

test-slow: $(VENV)/.test
	OMP_NUM_THREADS=1 $(py) -m pytest -m slow $(PYTEST_FLAGS)

test-all: test test-slow

test-exhaustive: $(VENV)/.test
	OMP_NUM_THREADS=1 $(py) -m pytest -m exhaustive $(PYTEST_FLAGS)

results: $(VENV)/.lab
	$(py) benchmarks/streams.py
	$(py) benchmarks/results.py

trust: $(VENV)/.lab
	$(py) benchmarks/trust.py

bench: $(VENV)/.lab
	$(py) benchmarks/speed.py

notebooks: $(VENV)/.lab
	$(py) -m tools.build_notebooks
	$(py) -m tools.run_notebooks

traces: $(VENV)/.lab
	$(py) -m tools.record
	$(py) -m tools.run_notebooks --tier replay

instructor: $(VENV)/.lab
	@$(py) -m tools.build_notebooks

classroom: $(VENV)/.lab
	@$(py) -m tools.prepare_classroom

site: $(VENV)/.test
	$(py) -m tools.website

lint: $(VENV)/.test
	$(py) -m ruff check .
	$(py) -m mypy

venv: $(py)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis test-results

# The first Python in range that can make an environment.
$(py):
	@seen=""; bare=""; \
	for python in $(PYTHON); do \
	  version=`"$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null` || continue; \
	  case $$version in 3.11|3.12|3.13) ;; *) seen="$${seen% $$version} $$version"; continue ;; esac; \
	  "$$python" -c 'import venv, ensurepip' 2>/dev/null || { bare=$$version; continue; }; \
	  echo "Making $(VENV) with Python $$version"; \
	  "$$python" -m venv --clear $(VENV); exit; \
	done; \
	if [ -n "$$bare" ]; then \
	  echo "Python $$bare is here but cannot make virtual environments:" \
	    "on Debian and Ubuntu, 'apt install python3-venv' (or python$$bare-venv) brings what is missing." >&2; \
	else \
	  echo "socketlab needs Python 3.11, 3.12 or 3.13 and found$${seen:- none}: install one of them," \
	    "or use conda or mamba with environment.yml." >&2; \
	fi; exit 1

# The stamps .lab and .test say what is installed; they are renewed when pyproject.toml changes.
$(VENV)/.lab: pyproject.toml $(py) $(moved)
	@echo "Installing; the first time downloads PyTorch, on Linux some 3 GB, and takes some minutes"
	$(py) -m pip install -e '.[lab]'
	@pwd -P > $(VENV)/.folder
	@touch $@

$(VENV)/.test: pyproject.toml $(py) $(moved)
	@echo "Installing; the first time downloads PyTorch, on Linux some 3 GB, and takes some minutes"
	$(py) -m pip install -e '.[lab,site,app,test]'
	@pwd -P > $(VENV)/.folder
	@touch $@ $(VENV)/.lab

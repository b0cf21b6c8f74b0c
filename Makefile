# `make course` runs the course, `make test` passes the tests. Both set everything up first (in .venv), and both need no
# network after that. `make help` lists the rest.
PYTHON ?= python3
PY := .venv/bin/python
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help course test lab lab-test site site-test readme refresh export house widgets bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/' | expand -t 18

.venv/.installed: settings.ini setup.py constraints.txt
	@$(PYTHON) -m scripts.set_up

course: .venv/.installed  ## run every lesson, offline; then make the pages to read, in _site/ (CPU=1: no GPU libraries)
	$(PY) -m scripts.run_course $(LESSONS)
	@$(MAKE) --no-print-directory site

test: .venv/.installed  ## every check, notebook and test, offline
	$(PY) -m scripts.run_tests $(ONLY)

lab: .venv/.installed  ## open your copy of a lesson in JupyterLab: make lab LESSON=20
	$(PY) -m course_lm lab $(LESSON)

lab-test: .venv/.installed  ## Run All, in JupyterLab, for every lesson and sheet (needs Chromium): make lab-test LESSONS="20 homework"
	@$(PY) -m scripts.set_up browser
	$(PY) -m scripts.lab_test $(LESSONS)

site: .venv/.installed  ## make the web pages from the stored outputs, into _site/
	@$(PY) -m scripts.set_up site
	$(PY) -m scripts.site.build

site-test: site  ## look at every page in a headless browser (needs Chromium)
	@$(PY) -m scripts.set_up browser
	$(PY) -m pytest tests/site -q -rs

readme: .venv/.installed  ## make README.md from nbs/index.ipynb
	$(PY) -m scripts.readme

refresh: .venv/.installed  ## re-run one lesson and store its outputs: make refresh NB=nbs/20_chunking.ipynb
	@test -n "$(NB)" || { echo "Say which notebook: make refresh NB=nbs/20_chunking.ipynb"; exit 2; }
	$(PY) -m scripts.refresh $(NB)

export: .venv/.installed  ## write the library from the notebooks, and clean the notebooks
	.venv/bin/nbdev_clean && .venv/bin/nbdev_export

house: .venv/.installed  ## list what is above its budget, and the figures of each room
	$(PY) -m scripts.house $(ROOM)

widgets: .venv/.installed  ## drive every widget in a headless browser (needs Chromium)
	@$(PY) -m scripts.set_up browser
	$(PY) -m pytest tests/browser -q

bench: .venv/.installed  ## measure against peers; tables are printed and kept in course_lm/records
	@$(PY) -m scripts.set_up bench
	for b in benchmarks/speed/[a-z]*.py; do $(PY) -m benchmarks.speed.$$(basename $$b .py) || exit 1; done

clean:  ## remove what the commands above have made, .venv included
	rm -rf .venv _run _site _proc _docs build dist *.egg-info .ruff_cache

# The front door. Needs make and Python >= 3.11; everything else is set up in .venv on first use.
# The work is done by tools/bootstrap.sh, tools/dev.py and tools/services.py.

BROKER ?= sqlite:///.queue-core/demo.db
PYTHON ?=
export BROKER PYTHON

.PHONY: help setup demo test test-fast check docs-table services services-down bench bench-peers

help: ## this list
	@echo "make setup          make .venv and install into it (implied by the others)"
	@echo "make demo           the demo on SQLite; BROKER=amqp://... (or another url) swaps the broker"
	@echo "make test           everything, with real servers"
	@echo "make test-fast      what needs no server, in under a minute"
	@echo "make check          format, lint, types, import rules"
	@echo "make docs-table     write the tables of features and settings into README.rst and docs/"
	@echo "make bench          this project and the bare drivers; ARGS=--help says what can be chosen"
	@echo "make bench-peers    the same with kombu, celery, dramatiq, taskiq, huey and procrastinate"
	@echo "make services       start the servers for the tests and leave them running"
	@echo "make services-down  stop them"
	@echo "PYTHON=/path/to/python3 chooses the interpreter for .venv."

setup:
	@sh tools/bootstrap.sh

demo: setup
	@mkdir -p .queue-core
	@QUEUE_CORE_DEMO_BROKER="$$BROKER" .venv/bin/queue-core demo

test: setup
	@.venv/bin/python tools/dev.py test

test-fast: setup
	@.venv/bin/python tools/dev.py test-fast

check: setup
	@.venv/bin/python tools/dev.py check

docs-table: setup
	@.venv/bin/python tools/features_table.py
	@.venv/bin/python tools/settings_table.py

bench: setup
	@.venv/bin/python -m benchmarks $(ARGS)

bench-peers: setup
	@sh tools/peers.sh
	@.venv/bin/python -m benchmarks --peers --thorough $(ARGS)

services: setup
	@.venv/bin/python tools/services.py up

services-down: setup
	@.venv/bin/python tools/services.py down

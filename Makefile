# Everything is made and run from here; "make help" lists the targets.
# Kept between runs, in .cache or VDISK_CACHE: the virtual environment, and the roots of other Ceph releases.
SHELL := /bin/bash
CACHE := $(or $(VDISK_CACHE),.cache)
VENV := $(CACHE)/venv
PYTHON := $(VENV)/bin/python
TOX := $(VENV)/bin/tox -q run
HARNESS := PYTHONPATH=tests $(PYTHON) -m harness
RELEASES ?= pacific reef tentacle
PYTEST ?=
BENCH ?=
export VDISK_DEMO_DIR ?= /tmp/vdisk-demo

.DEFAULT_GOAL := help
.PHONY: help proto bootstrap roots demo demo-down lint docs sbom test test-unit test-cluster bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 16

bootstrap:  ## Debian packages that are missing, and the virtual environment
	@tools/bootstrap.sh

roots: bootstrap  ## the Ceph releases that this machine does not have, each from its Debian release
	@$(HARNESS) roots $(RELEASES)

proto: bootstrap  ## the CSI interface as Python, beside its .proto (tests do this by themselves)
	@$(PYTHON) tools/proto.py

demo: bootstrap  ## a cluster with vdisk at work, to look at and play with
	@PYTHONPATH=tests $(PYTHON) tools/demo.py

demo-down: bootstrap  ## stop the cluster of the demonstration
	@$(HARNESS) down --dir $(VDISK_DEMO_DIR)

lint: bootstrap  ## formatting, lint, types
	@$(TOX) -e lint

docs: bootstrap  ## the documentation as HTML, in .cache/docs
	@VDISK_DOCS=$(CACHE)/docs $(TOX) -e docs

sbom: bootstrap  ## what the build and the tests are made of, in .cache/sbom.cdx.json (CycloneDX)
	@VDISK_SBOM=$(CACHE)/sbom.cdx.json $(TOX) -e sbom -- $(PYTHON)

test-unit: bootstrap  ## tests that need no cluster (PYTEST="-k name" for some)
	@$(TOX) -e unit -- $(PYTEST)

test-cluster: roots  ## tests on real clusters (RELEASES="pacific reef" PYTEST="-k name" for some)
	@$(TOX) --notest -e cluster
	@tools/test-cluster.sh $(RELEASES) -- $(PYTEST)

test: lint docs roots test-unit test-cluster  ## all of it, from a bare machine

bench: bootstrap  ## vdisk beside bare librbd and the command line (BENCH="--quick" and others: BENCH=--help)
	@PYTHONPATH=.:tests $(PYTHON) -m bench $(BENCH)

clean:  ## remove what tests and tools left, but not the roots and the virtual environment
	rm -rf build src/*.egg-info src/vdisk_csi/proto/csi_pb2* .tox .mypy_cache .ruff_cache .pytest_cache $(CACHE)/logs $(CACHE)/pytest-*
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} +

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
.PHONY: help proto bootstrap bootstrap-demo roots demo demo-down lint docs drawings examples matrix sbom deb test-deb test test-unit test-cluster bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 16

bootstrap:  ## Debian packages that are missing, and the virtual environment
	@tools/bootstrap.sh

bootstrap-demo:
	@tools/bootstrap.sh demo

roots: bootstrap  ## the Ceph releases that this machine does not have, each from its Debian release
	@$(HARNESS) roots $(RELEASES)

proto: bootstrap  ## the CSI interface as Python, beside its .proto (tests do this by themselves)
	@$(PYTHON) tools/proto.py

demo: bootstrap-demo  ## a cluster with vdisk at work, to look at and play with (VDISK_DEMO_DIR=/tmp/vdisk-demo)
	@PYTHONPATH=tests /usr/bin/python3 tools/demo.py

demo-down: bootstrap-demo  ## stop the cluster of the demonstration
	@PYTHONPATH=tests /usr/bin/python3 -m harness down --dir $(VDISK_DEMO_DIR)

lint: bootstrap  ## formatting, lint, types
	@$(TOX) -e lint

docs: bootstrap  ## the documentation as HTML, in .cache/docs
	@VDISK_DOCS=$(CACHE)/docs $(TOX) -e docs

examples: bootstrap  ## type the commands of the documentation on a new cluster and write what comes back into it (PAGES=...)
	@$(TOX) --notest -e unit
	@PYTHONPATH=tests .tox/unit/bin/python -m transcripts $(or $(PAGES),README.md doc/*.md)

drawings: bootstrap  ## the documentation's drawings, in doc/images
	@$(PYTHON) tools/drawings.py

matrix: bootstrap  ## doc/matrix.md, from the results that the last whole `make test` left in .cache/results
	@$(PYTHON) tools/matrix.py $(CACHE)/results doc/matrix.md

sbom: bootstrap  ## what the build and the tests are made of, in .cache/sbom.cdx.json (CycloneDX)
	@VDISK_SBOM=$(CACHE)/sbom.cdx.json $(TOX) -e sbom
	@echo $(CACHE)/sbom.cdx.json

deb: bootstrap  ## the Debian package ceph-mgr-vdisk, in .cache/deb
	@tools/deb.sh

test-unit: bootstrap  ## tests that need no cluster (PYTEST="-k name" for some)
	@$(TOX) -e unit $(if $(PYTEST),-- $(PYTEST))

test-cluster: roots deb  ## tests on real clusters (RELEASES="pacific reef" PYTEST="-k name" for some)
	@$(TOX) --notest -e cluster
	@tools/test-cluster.sh $(RELEASES) -- $(PYTEST)

test: lint docs roots test-unit test-cluster  ## all of it, from a bare machine

test-deb: bootstrap  ## the Debian package in fresh roots of Debian 12 and sid, which this makes (minutes, once)
	@tools/bootstrap.sh debhelper dh-python
	@PYTHONPATH=tests $(PYTHON) -c 'from harness.releases import SUITES, root_dir; from harness.roots import build_root; [build_root(n, SUITES[n], root_dir(n)) for n in ("pacific", "tentacle")]'
	@VDISK_RELEASES=pacific,tentacle $(TOX) -e cluster -- -v -k test_deb.py $(PYTEST)

bench: bootstrap  ## vdisk beside bare librbd and the command line (BENCH="--quick" and others: BENCH=--help)
	@PYTHONPATH=.:tests $(PYTHON) -m bench $(BENCH)

clean:  ## remove what tests and tools left, but not the roots and the virtual environment
	rm -rf build src/*.egg-info src/vdisk_csi/proto/csi_pb2* .tox .hypothesis .mypy_cache .ruff_cache .pytest_cache $(CACHE)/logs $(CACHE)/results $(CACHE)/pytest-* $(CACHE)/pycache
	find src tests tools bench -name __pycache__ -prune -exec rm -rf {} +

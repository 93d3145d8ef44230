# Everything a developer or CI runs. Each target does its own set-up; a second run is quick.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
BUNDLE := dist/azvnet
STEP := packaging/step.sh
ARGS ?=

# Reproducible builds, and bytecode that is written whatever the caller's shell says.
export PYTHONHASHSEED := 0
export PYTHONDONTWRITEBYTECODE :=
# Nothing of the caller's Python set-up reaches ours.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET [ARGS=...]\n"} \
	  /^[a-z0-9-]+:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: bootstrap
bootstrap: ## install the Debian/Ubuntu packages that building and testing need (as root)
	@packaging/bootstrap.sh

.PHONY: venv
venv: .venv/.installed ## .venv with the locked dependencies

.venv/.installed: packaging/requirements/dev.lock packaging/venv.sh | bootstrap
	@$(STEP) "python environment" packaging/venv.sh

.PHONY: lock
lock: venv ## regenerate the lock files (ARGS=--upgrade: newest versions)
	@packaging/lock.sh $(ARGS)

.PHONY: build
build: venv ## the frozen bundle in dist/azvnet (nothing to do when no input changed)
	@$(STEP) "frozen bundle" packaging/build.sh

.PHONY: operator
operator: venv ## the frozen bundle of `azvnet operator` in dist/azvnet-operator
	@$(STEP) "operator's bundle" packaging/build.sh --operator

.PHONY: build-twice
build-twice: venv ## build twice and compare: the same bytes (two minutes; ARGS=--operator)
	@$(STEP) "first build" packaging/build.sh --force $(ARGS) --output build/first
	@$(STEP) "second build" packaging/build.sh --force $(ARGS) --output build/second
	@diff -r --no-dereference build/first build/second
	@echo "build-twice: both bundles are the same, file by file"
	@rm -rf build/first build/second build/first-work build/second-work

.PHONY: upgrade
upgrade: bootstrap ## upgrade the Debian packages whose files go into bundle and image (as root)
	@packaging/upgrade.sh

.PHONY: image
image: upgrade build ## the container image in dist/azvnet-image.tar, with its bill of materials (ARGS=--help)
	@$(STEP) "image" packaging/image/build.sh $(if $(filter image,$(MAKECMDGOALS)),$(ARGS))

.PHONY: operator-image
operator-image: upgrade operator ## the operator's image in dist/azvnet-operator-image.tar (ARGS=--help)
	@$(STEP) "operator's image" packaging/image/build.sh --operator $(if $(filter operator-image,$(MAKECMDGOALS)),$(ARGS))

.PHONY: check
check: ## lint and all unit tests that are not slow, in less than a minute: no root, no Debian packages
	@packaging/venv.sh
	@packaging/lint.sh
	@$(PY) packaging/run_tests.py unit -- --hypothesis-profile=quick -m 'not slow' $(ARGS)

.PHONY: lint
lint: venv ## ruff, mypy --strict, shellcheck, markers of unfinished work
	@packaging/lint.sh

.PHONY: format
format: venv ## format the sources with ruff
	@.venv/bin/ruff check --quiet --fix . || true
	@.venv/bin/ruff format .

.PHONY: test
test: upgrade venv ## lint, build, and every layer of tests (as root)
	@packaging/bootstrap.sh kind
	@$(PY) packaging/run_tests.py --first "lint image operator-image" --beside "tools programs" $(if $(ARGS),-- $(ARGS))

.PHONY: test-unit
test-unit: venv ## the quick layer, without root (ARGS="-k NAME": only some tests)
	@$(PY) packaging/run_tests.py unit $(if $(ARGS),-- $(ARGS))

.PHONY: test-launcher
test-launcher: venv ## the static launcher against a scripted agent
	@$(PY) packaging/run_tests.py launcher $(if $(ARGS),-- $(ARGS))

.PHONY: test-netns
test-netns: build ## the real kernel, in network namespaces, stand-alone and by the agent (as root)
	@$(PY) packaging/run_tests.py netns launcher-way $(if $(ARGS),-- $(ARGS))

.PHONY: test-install
test-install: build ## install, uninstall and verify, on a node's directories (as root)
	@$(PY) packaging/run_tests.py install $(if $(ARGS),-- $(ARGS))

.PHONY: test-bundle
test-bundle: build operator ## the frozen bundles: as files on a node, and the operator's (as root)
	@$(PY) packaging/run_tests.py bundle $(if $(ARGS),-- $(ARGS))

.PHONY: test-image
test-image: image operator-image ## the container images and their bills of materials (as root)
	@$(PY) packaging/run_tests.py image $(if $(ARGS),-- $(ARGS))

.PHONY: test-chart
test-chart: venv kubernetes ## the Helm chart and the plain manifests
	@$(PY) packaging/run_tests.py chart $(if $(ARGS),-- $(ARGS))

.PHONY: test-integration
test-integration: image operator tools ## emulated nodes, cnitool, runtimes (as root)
	@$(PY) packaging/run_tests.py integration $(if $(ARGS),-- $(ARGS))

.PHONY: test-apiserver
test-apiserver: build operator kubernetes ## operator and agents with a real API server, without a kubelet (as root)
	@$(PY) packaging/run_tests.py apiserver $(if $(ARGS),-- $(ARGS))

.PHONY: demo
demo: build ## two emulated Azure nodes, pods on them, who reaches whom
	@$(PY) -m integration.demo $(ARGS)

.PHONY: sandbox
sandbox: build ## start the emulated Azure fabric (ARGS=--help)
	@$(PY) -m integration.fabric $(ARGS)

.PHONY: e2e
e2e: image kubernetes ## a real Kubernetes: nodes, pods, services, its own conformance specs (as root)
	@$(PY) packaging/run_tests.py e2e $(if $(ARGS),-- $(ARGS))

.PHONY: cluster
cluster: build kubernetes ## a real Kubernetes to try things on (NODES=3 PROXY=iptables CNI=none)
	@$(PY) -m integration.cluster up --nodes $(or $(NODES),2) --proxy $(or $(PROXY),nftables) \
	  --cni $(or $(CNI),azvnet) $(ARGS)

.PHONY: cluster-shell
cluster-shell: venv ## a shell on a node of it (NODE=node1)
	@$(PY) -m integration.cluster shell $(or $(NODE),node1)

.PHONY: cluster-conformance
cluster-conformance: venv ## run Kubernetes' own networking specs on it (ARGS="--focus REGEX")
	@$(PY) -m integration.cluster conformance $(ARGS)

.PHONY: conformance-compare
conformance-compare: image kubernetes ## Kubernetes' own networking specs with azvnet and with ptp, into docs/conformance.md (ARGS=--help)
	@$(PY) -m integration.cluster compare $(ARGS)

.PHONY: cluster-down
cluster-down: venv ## take it down
	@$(PY) -m integration.cluster down

.PHONY: kind
kind: $(if $(findstring -h,$(ARGS)),venv,image) ## a real kind cluster with azvnet (NODES=3 DOCKER=own|system ARGS=--help)
	@$(PY) -m integration.kind up --nodes $(or $(NODES),2) --docker $(or $(DOCKER),auto) $(ARGS)

.PHONY: kind-reload
kind-reload: image ## load a changed build into the kind cluster and roll it out
	@$(PY) -m integration.kind reload

.PHONY: kind-down
kind-down: venv ## delete the kind cluster, or what a killed one left behind
	@$(PY) -m integration.kind down

.PHONY: test-kind
test-kind: image kubernetes ## a real kind cluster, and what it leaves on the machine (as root)
	@packaging/bootstrap.sh kind
	@$(PY) packaging/run_tests.py kind $(if $(ARGS),-- $(ARGS))

.PHONY: bench
bench: build tools ## whole calls against ptp + host-local, as a table with ratios
	@$(PY) -m integration.bench $(ARGS)

.PHONY: bench-pods
bench-pods: image kubernetes ## 100 pods at once on a node of a real Kubernetes, compared with ptp + host-local (ARGS=--help)
	@$(PY) -m integration.bench.pods $(ARGS)

.PHONY: bench-scale
bench-scale: operator kubernetes ## the operator with 1,000 nodes and 30,000 pods, a quarter of an hour (as root, ARGS=--help)
	@$(STEP) "kwok" integration/tools/build.sh kwok
	@$(PY) -m integration.bench.scale $(ARGS)

.PHONY: bench-traffic
bench-traffic: build tools ## speed of pods' packets compared with ptp and bridge, as a table with ratios (as root, ARGS=--help)
	@packaging/bootstrap.sh traffic
	@$(PY) -m integration.bench.traffic $(ARGS)

.PHONY: traffic-matrix
traffic-matrix: build tools ## measure who sees which source address, and write the table in docs/traffic.md (as root)
	@$(PY) -m integration.traffic

.PHONY: tools
tools: bootstrap ## cnitool, the reference plugins, a CRI client, the newest containerd and gVisor, built with Go
	@$(STEP) "Go tools" integration/tools/build.sh
	@$(STEP) "containerd" integration/tools/build.sh containerd
	@$(STEP) "gVisor" integration/tools/build.sh gvisor

.PHONY: kubernetes
kubernetes: venv tools ## etcd, Kubernetes, CoreDNS, helm and the e2e specs, built with Go (once, 10 to 25 minutes)
	@packaging/bootstrap.sh cluster
	@$(STEP) "Kubernetes" integration/tools/build.sh kubernetes

.PHONY: programs
programs: kubernetes ## all programs of other people that tests run: tools, kubernetes, and those of kind
	@packaging/bootstrap.sh kind
	@$(STEP) "kind" $(PY) -m integration.kind prepare

.PHONY: clean
clean: ## remove what was built; .venv and downloaded tools stay
	rm -rf build dist .cache/reports .cache/mypy .cache/pytest .cache/build .ruff_cache .hypothesis .mypy_cache .pytest_cache

.PHONY: distclean
distclean: clean ## remove everything that git does not track
	rm -rf .venv .cache

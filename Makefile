# Every target does its own set-up; nothing is installed into the tree, all caches live in ~/.cache/ipvlan-bandwidth.
SHELL := /bin/sh
.DEFAULT_GOAL := help
CACHE := $(or $(IPVLAN_BANDWIDTH_CACHE),$(HOME)/.cache/ipvlan-bandwidth)
BIN := "$(CACHE)"/venv/bin
PYTHON := $(BIN)/python
export PYTHONDONTWRITEBYTECODE := 1
# A root shell opened with plain `su` has neither.
export PATH := $(PATH):/usr/sbin:/sbin
# Of both targets of the fuzzer together.
FUZZ_SECONDS ?= 60
# Guests and clusters whose CPU is emulated have bad moments, not a bad hour: a test that fails is run once more and its
# failure printed in full at the end; a fourth failure of a run is final. A loss (LostError of tests/losses.py) is final
# at once.
SECOND_CHANCE := --reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks
UNLESS_LOST := --rerun-except ^LostError:
# The kernels of Debian's bullseye, bookworm, trixie and sid.
KERNELS ?= 5.10 6.1 6.12 newest
# The tests that depend on the kernel's version; the others test our own steps, and take half an hour more per kernel.
KERNEL_TESTS ?= rates queue splitting parallel versions lifecycle monitor probe shared_sockets bypass small_protocols
# The functional core: no I/O, and every branch tested.
PURE := webhook/common/arguments.py,webhook/common/contract.py,webhook/common/suggestions.py,webhook/admission.py,webhook/policy.py,webhook/jsonpatch.py,webhook/common/list_decoder.py,webhook/review.py,webhook/documents.py,webhook/common/token_bucket.py,webhook/common/backoff.py,webhook/common/event.py,reconciler/model.py,reconciler/plan.py,$\
	reconciler/slots.py,reconciler/backoff.py,reconciler/paths.py,reconciler/bypass.py,reconciler/requirements.py,reconciler/pods.py,reconciler/desired.py,reconciler/report.py,reconciler/sandboxes.py,reconciler/ran_unlimited.py,reconciler/unreported.py,reconciler/node_state.py,reconciler/sandbox_state.py,$\
	reconciler/nri/protobuf.py,reconciler/nri/mux.py,reconciler/nri/ttrpc.py,reconciler/nri/messages.py,$\
	reconciler/nri/plugin.py,reconciler/kernel/buckets.py,reconciler/kernel/raw.py,certs/authority.py,certs/changes.py,certs/credentials.py,certs/rotation.py,certs/secret.py

.PHONY: help setup setup-cluster lint test test-unit test-differential test-alerts fuzz test-kernel test-kernels test-cluster \
	chaos bench bench-admission bench-reconciler demo cluster cluster-down images clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  KERNELS=\"5.10 newest\"     only these kernels in test-kernels"
	@echo "  KERNEL_TESTS=\"drift\"      only tests/kernel/test_drift.py in test-kernels"
	@echo "  MULTUS=/path/to/multus    the real Multus on the nodes, in place of the suite's stand-in"
	@echo "  EXTRA_CNI_BIN=/dir        further CNI plugins on the nodes"

setup: ## the Debian packages and the virtual environment
	@tests/setup/system.sh
	@tests/setup/venv.sh

setup-cluster: setup ## the cluster's binaries, built from Go modules once, and the images
	@manifests/images/build
	@tests/setup/binaries.sh

lint: setup ## formatting, lint, types, and the contracts between the packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: test-unit test-differential test-alerts test-kernel test-cluster ## the tests, but for those on other kernels and the long ones of make chaos

test-unit: setup ## without root, in seconds; the pure modules covered to the last branch
	$(BIN)/coverage run -m pytest tests/unit
	$(BIN)/coverage report
	$(BIN)/coverage report --include="$(PURE)" --fail-under=100 > /dev/null

test-differential: setup ## the grammar of a limit beside Kubernetes' own parser, which is built from its Go module
	@tests/setup/binaries.sh quantity
	$(BIN)/pytest tests/differential

test-alerts: setup ## alerts and metrics by Prometheus' own tool, built from its Go module, once
	@tests/setup/binaries.sh promtool
	$(BIN)/pytest tests/prometheus

fuzz: setup ## looks for what breaks the webhook, for a minute; FUZZ_SECONDS=3600 for an hour
	@tests/setup/fuzz.sh
	@mkdir -p build/fuzz/quantity build/fuzz/review
	@for target in quantity review; do \
		echo "fuzzing: $$target for $$(($(FUZZ_SECONDS) / 2)) s" && \
		PYTHONPATH="$(CACHE)"/fuzz $(PYTHON) -m tests.fuzz $$target -max_total_time=$$(($(FUZZ_SECONDS) / 2)) -timeout=5 \
			-rss_limit_mb=1024 -artifact_prefix=build/fuzz/broken- -print_final_stats=1 build/fuzz/$$target || exit 1; \
	done

test-kernel: setup ## the shaper on real ipvlan, in user-mode-linux
	$(PYTHON) -m tests.kernel $(SECOND_CHANCE) $(UNLESS_LOST)

test-kernels: setup ## the shaper tests on Debian's kernels 5.10 to the newest, in QEMU (emulated, 4 CPUs, some 13 minutes each)
	@tests/setup/system.sh qemu-system-x86 xz-utils debian-archive-keyring
	@tests/setup/kernels.sh $(KERNELS)
	$(PYTHON) -m tests.kernel $(addprefix --kernel ,$(KERNELS)) $(KERNEL_TESTS:%=tests/kernel/test_%.py) \
		$(SECOND_CHANCE) $(UNLESS_LOST)

# The manifests' tests once more: without kubectl, as on a machine where test-unit comes first, they render nothing.
test-cluster: setup-cluster ## a real two-node cluster
	$(BIN)/pytest tests/unit/manifests tests/cluster $(SECOND_CHANCE) $(UNLESS_LOST)

chaos: setup-cluster ## bad days on the two-node cluster and what is lost by them; CHAOS="NAME ..." for some, CHAOS=--list names them
	$(PYTHON) -m tests.cluster.chaos $(CHAOS)

bench: setup ## benchmarks beside other shapers, in 40 minutes; BENCH="latency cost" for some, BENCH=--help for how
	@tests/setup/system.sh qemu-system-x86 xz-utils debian-archive-keyring
	@tests/setup/kernels.sh newest
	$(PYTHON) -m tests.bench $(BENCH)

bench-admission: setup ## what admission costs beside no webhook and one in Go that does the same, in 6 minutes; BENCH=--help for how
	@tests/setup/binaries.sh etcd kube-apiserver admission-load admission-webhook
	$(PYTHON) -m tests.bench.admission $(BENCH)

bench-reconciler: setup ## what the reconciler costs on a node of 250 limited Pods, in 4 minutes
	$(PYTHON) -m tests.bench.reconciler

demo: setup-cluster ## the main job on a two-node cluster, with figures, which tests/cluster/results keeps
	$(PYTHON) -m tests.cluster demo

cluster: setup-cluster ## the two-node cluster, left up for you
	$(PYTHON) -m tests.cluster up

cluster-down: ## takes the cluster away again
	$(PYTHON) -m tests.cluster down

images: setup ## OCI archives of what the manifests name, in build/images
	@manifests/images/build

clean: ## what the build made inside the tree
	rm -rf build .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

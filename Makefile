# One front door. Everything slow is cached outside the checkout (~/.cache/smolcluster-logging).
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Only for what make runs here: no settings of the user's own Ansible.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.ansible

.PHONY: help venv demo test test-slow lab lab-down lint bench docs mac-check

help: ## Show this (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv:
	@tools/venv.sh

demo: lab ## Try it: deploy to the container lab, train, and see the lines in Loki
	@ansible-playbook -i inventory/lab -i lab/demo/inventory.yml site.yml
	@ansible-playbook -i inventory/lab -i lab/demo/inventory.yml playbooks/verify.yml
	@python -m lab.demo

# Two workers share the files out in this order: what takes long begins early, and what needs no lab fills the end.
# A worker that crashes ends the run, as its next one would begin with the same test.
test: venv ## Run every test; a running lab is replaced. Two workers, each with a lab of its own; WORKERS=0 for none
	@python -m pytest --numprocesses=$(or $(WORKERS),2) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 \
		-m "not slow" tests/unit tests/formats tests/lab tests/molecule tests/faults tests/sanity tests/lint

test-slow: venv ## Run every fault test, the long ones too, and record the results in docs/delivery.md
	@python -m pytest tests/faults
	@python -m tests.faults

lab: venv ## Bring the container lab up without deploying anything; safe to repeat. MAC=1 adds a simulated Mac
	@python -m lab up $(if $(filter 1,$(MAC)),--mac)

lab-down: venv ## Remove every container, network and volume of the lab
	@python -m lab down

lint: venv ## Check style
	@yamllint --strict .
	@ansible-lint --offline
	@ruff check .
	@ruff format --check .
	@tools/role_docs.py --check
	@python -m dashboards --check
	@# What runs on nodes: the Python of Apple's developer tools is 3.9.
	@vermin --quiet --no-tips --violations --target=3.9- plugins/modules plugins/module_utils roles/*/files
	@antsibull-changelog lint
	@antsibull-docs lint-collection-docs --plugin-docs .
	@if command -v go >/dev/null; then go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12; \
		else echo "Not checked: .github/workflows, which needs Go"; fi

docs: venv ## Write the generated pages again
	@tools/role_docs.py
	@python -m dashboards

mac-check: venv ## Confirm on a real Mac of your inventory that all works: make mac-check HOST=mini1 [ASK=1] [REBOOT=1]
	@tools/mac_check.py $(or $(HOST),$(error Say which: make mac-check HOST=mini1)) $(if $(INVENTORY),--inventory $(INVENTORY)) \
		$(if $(filter 1,$(ASK)),--ask-become-pass) $(if $(filter 1,$(REBOOT)),--reboot)

bench: lab ## Measure what docs/performance.md records
	@PYTHONPATH=collections python -m tests.bench

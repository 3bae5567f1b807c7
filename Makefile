# Short names for the programs in scripts/; each of those runs on its own as well.

.DEFAULT_GOAL := help
.PHONY: help run stop logs clean test test-engines test-openstack demo-cluster chaos lint format bench bench-scale docs configuration differences

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

run: ## Install what is missing, start Higgins in the background and run a first container
	@scripts/run

stop: ## Stop Higgins; its containers go on
	@scripts/stop

logs: ## Follow the log of Higgins
	@scripts/logs

clean: ## Remove all that "make run" made: containers, networks, rules, mounts, data
	@scripts/clean

test: ## Install what the tests need, then lint and run all tests, on real engines
	@scripts/setup-test
	@scripts/lint
	@scripts/test

test-openstack: ## Bring up real OpenStack services, run the tests that need them; SERVICES="keystone glance" chooses some
	@scripts/setup-test
	@scripts/test-openstack

test-engines: ## Run the contract suite on all engines, old and new; HIGGINS_ENGINES="podman" chooses
	@scripts/setup-test
	@scripts/test-engines

demo-cluster: ## Show a cloud of three hosts on this machine: a network across them, a drain
	@scripts/setup-test
	@scripts/demo-cluster

chaos: ## Kill every process of a cloud at random under load, and check what came of it; CHAOS="SECONDS SEED"
	@scripts/setup-test
	@scripts/chaos

lint: ## Check style, types, layers and documents; change nothing
	@scripts/lint

format: ## Put all Python files into the project's style
	@scripts/format

bench: ## Measure start, create, API and density; BENCH="startup create api" chooses, BENCH_ARGS adds options
	@scripts/bench $(BENCH)

bench-scale: ## Measure a million containers, placement on thousands of hosts, thousands of agents; needs PostgreSQL
	@scripts/bench scale placement agents

docs: ## Check that the documents match the tree
	@scripts/docs

configuration: ## Write docs/configuration.md from the options
	@scripts/configuration

differences: ## Write docs/engines-differences.md from what the contract suite sees; HIGGINS_ENGINES chooses
	@scripts/differences

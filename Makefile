# Every target works in a fresh clone that has only Python 3.11+, git and make: what is missing is set up first.
.DEFAULT_GOAL := help

# PYTHON=python3.12 picks a Python; TORCH=cpu or cuda picks PyTorch's build; TORCH_INDEX says where its CPU build is.
PYTHON ?= python3
TORCH ?= auto
export PYTHON TORCH TORCH_INDEX
# TARGET says which image: slim, train-cpu or train. REGISTRY=HOST/PROJECT/REPO says where it goes. BASE_IMAGE names
# another base, UNSLOTH=no leaves Unsloth out, ENGINE picks docker, podman or buildah, CACHE=REPOSITORY keeps layers between machines, DRY_RUN=1 prints commands only.
TARGET ?= train
export BASE_IMAGE UNSLOTH CACHE TARGET
image := $(PYTHON) -m tools.image
image_flags := $(if $(DRY_RUN),--dry-run) $(if $(ENGINE),--engine $(ENGINE))
# More flags for pytest, such as TEST_FLAGS="-k resume -x".
TEST_FLAGS ?=

bin := .venv/bin

.PHONY: help setup demo check test test-all format lock image image-test image-push image-cloud image-base image-copy release-check release system-deps clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## makes .venv from the locks (about 2 minutes, once)
	@tools/setup.sh

demo: setup ## the whole story here: launch, be preempted twice, go on elsewhere, compare (about 2 minutes)
	@$(bin)/baton demo

check: setup system-deps ## locks, format, lint, shell, workflows, types, borders (about 1 minute)
	@tools/check.sh

test: setup system-deps ## the core tests (at most 12 minutes)
	@$(bin)/python -m pytest -n 2 --dist loadfile -m "not long and not image" $(TEST_FLAGS)

test-all: test ## the core tests, then the long ones (at most 20 minutes more)
	@$(bin)/python -m pytest -n 2 --dist loadfile -m long $(TEST_FLAGS)

format: setup ## formats, and mends what the linter can mend
	@$(bin)/ruff format --quiet .
	@$(bin)/ruff check --fix --quiet .

lock: setup ## resolves the locks again from pyproject.toml (10 s, network)
	@$(bin)/python tools/lock.py

image: ## builds the image TARGET=train (or train-cpu, slim) with docker, podman or buildah
	@$(image) build $(image_flags) $(TARGET)

image-test: $(if $(DRY_RUN),,setup) ## builds train-cpu and slim, and proves them in containers (at most 12 minutes; root)
	@$(if $(DRY_RUN),,tools/system-deps.sh image)
	@$(if $(DRY_RUN),$(image) build $(image_flags) train-cpu slim,$(bin)/python -m pytest -m image $(TEST_FLAGS))

image-push: ## pushes the image TARGET that was built to REGISTRY=HOST/PROJECT/REPO, and prints NAME@DIGEST
	@$(image) push $(image_flags) --registry "$$REGISTRY" $(TARGET)

# REGISTRY is REGION-docker.pkg.dev/PROJECT/REPO, BUCKET the one of the runs.
cloud_project = $(word 2,$(subst /, ,$(REGISTRY)))
image-cloud: ## has Cloud Build make the image TARGET: REGISTRY=... BUCKET=..., as infra/setup.sh --cloud-build says them
	@$(if $(DRY_RUN),echo )gcloud builds submit . --config=cloudbuild.yaml --project="$(cloud_project)" \
		--region="$(patsubst %-docker.pkg.dev,%,$(firstword $(subst /, ,$(REGISTRY))))" \
		--service-account="projects/$(cloud_project)/serviceAccounts/baton-build@$(cloud_project).iam.gserviceaccount.com" \
		--gcs-source-staging-dir="gs://$(BUCKET)/builds" \
		--substitutions="_TARGET=$(TARGET),_REGISTRY=$(REGISTRY),_REVISION=$$(git rev-parse HEAD),_UNSLOTH=$(or $(UNSLOTH),yes)"

image-base: ## looks up the digest of the base image, and prints it
	@$(image) base $(image_flags)

image-copy: ## copies the image FROM=NAME@DIGEST to another registry, or gives it a tag: TO=NAME[:TAG]
	@$(image) copy $(image_flags) "$$FROM" "$$TO"

release-check: ## whether TAG=v1.2.0, pyproject.toml and CHANGELOG.md name one version
	@$(PYTHON) -m tools.release check "$$TAG"

release: ## makes the release TAG on GitHub, of IMAGES="train=NAME@DIGEST train-cpu=... slim=..."
	@$(PYTHON) -m tools.release publish $(if $(DRY_RUN),--dry-run) --images="$$IMAGES" "$$TAG"

system-deps: ## what checks and tests need of the system, by apt where that can be done
	@tools/system-deps.sh

clean: ## removes .venv and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build ./*.egg-info

# Two commands are enough on a fresh machine with python3, python3-venv and make:
#   make demo       judge the sample clips, leave an HTML report in out/demo
#   make test       all checks and tests
#   make demo-data  a small DFDC in an S3 server: index, eda, build, verify; pages in out/demo-data
PYTHON ?= python3
LIGHT := .venv-light
FULL := .venv
# What needs the extras; the light install skips it, with the reason.
FULL_TESTS := tests/train tests/data tests/evaluate tests/test_dev_data.py tests/test_demo_data.py \
	tests/test_deploy.py tests/test_cli_build.py tests/test_cli_sources.py tests/test_graphfile.py \
	tests/test_bench.py tests/serve
# Every version is pinned, those that a build needs too; `make test CONSTRAINTS=/dev/null` takes
# the newest.
CONSTRAINTS ?= $(CURDIR)/constraints.txt
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
AXE := axe-core@4.14.1
FACENET := facenet_pytorch-2.6.0-py3-none-any.whl

.PHONY: demo demo-data test test-light test-full lint types contracts bench samples lock clean

demo: $(LIGHT)/.installed
	$(LIGHT)/bin/tellframe detect samples/real.mp4 samples/fake.mp4 samples/two_people.mp4 --html out/demo/
	@echo "open out/demo/index.html"

demo-data: $(FULL)/.installed
	$(FULL)/bin/python scripts/run_demo_data.py --out out/demo-data

test: test-light lint types contracts test-full

# The light install: what a user gets, without torch.
test-light: $(LIGHT)/.installed-dev
	$(LIGHT)/bin/python -m pytest

# The extras; the wheel holds the weights that ours are compared with.
test-full: $(FULL)/.installed $(FULL)/$(FACENET) $(FULL)/axe
	TELLFRAME_FACENET_WHEEL=$(FULL)/$(FACENET) $(FULL)/bin/python -m pytest $(FULL_TESTS)

lint: $(FULL)/.installed
	$(FULL)/bin/ruff check .
	$(FULL)/bin/ruff format --check .

types: $(FULL)/.installed
	$(FULL)/bin/mypy

contracts: $(FULL)/.installed
	$(FULL)/bin/lint-imports

bench: $(LIGHT)/.installed
	$(LIGHT)/bin/tellframe bench detect --portrait samples/real.mp4 --rounds 7

# Needs the packages that hold the portraits; see samples/README.md.
samples: $(FULL)/.installed
	$(FULL)/bin/python scripts/make_samples.py --out samples

# The newest versions of everything, for `make test` to say whether they do.
lock:
	rm -rf $(FULL)
	$(MAKE) CONSTRAINTS=/dev/null $(FULL)/.installed
	$(FULL)/bin/python scripts/lock.py
	$(FULL)/bin/python scripts/list_licences.py

$(LIGHT)/.installed: pyproject.toml constraints.txt $(shell find src -type f -not -name '*.pyc')
	test -x $(LIGHT)/bin/python || $(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/pip install --quiet --upgrade pip
	$(LIGHT)/bin/pip install --quiet --force-reinstall --no-deps .
	$(LIGHT)/bin/pip install --quiet .
	touch $@

$(LIGHT)/.installed-dev: $(LIGHT)/.installed
	$(LIGHT)/bin/pip install --quiet --group dev
	touch $@

$(FULL)/.installed: pyproject.toml constraints.txt
	test -x $(FULL)/bin/python || $(PYTHON) -m venv $(FULL)
	$(FULL)/bin/pip install --quiet --upgrade pip
	$(FULL)/bin/pip install --quiet torch torchvision
	$(FULL)/bin/pip install --quiet -e '.[train,data,ray,serve]' --group dev --group data-tests --group serve-tests --group build
	touch $@

$(FULL)/$(FACENET): $(FULL)/.installed
	$(FULL)/bin/pip download --quiet --no-deps -d $(FULL) facenet-pytorch==2.6.0

# Checks of accessibility need axe-core; without npm, or without a connection, they are skipped.
$(FULL)/axe:
	mkdir -p $@
	@if command -v npm > /dev/null; then \
		npm install --prefix $@ --silent --no-audit --no-fund --ignore-scripts \
		--fetch-retries 0 --fetch-timeout 30000 $(AXE) \
		|| { rm -rf $@; echo "axe-core cannot be fetched: accessibility is not checked"; }; \
	else rm -rf $@; echo "no npm: accessibility is not checked"; fi

clean:
	rm -rf $(LIGHT) $(FULL) out build dist .mypy_cache .ruff_cache .pytest_cache

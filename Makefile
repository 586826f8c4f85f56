# Needs Python 3.11 or newer with venv, and PyPI. Everything else is installed into .venv.
PYTHON ?= python3
UV_VERSION := 0.13.9

BIN := .venv/bin
UV := .venv/uv-$(UV_VERSION)
SYNCED := .venv/synced
GENERATED := latchkey/v1
DOMAIN := server/latchkey_server/domain/*
GOOGLEAPIS := proto/.googleapis
RELEASED := dist/latchkey-protos
BASELINE := proto/baseline.binpb
BREAKING := buf breaking proto --against $(BASELINE) --exclude-imports

# A shell's own choices must not change what is installed, or where.
unexport VIRTUAL_ENV UV_PROJECT_ENVIRONMENT UV_PYTHON
# The lock file holds public addresses only, whatever mirror this machine is set to.
PUBLIC_UV := env -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS $(BIN)/uv --no-config
PUBLIC_INDEX := --default-index https://pypi.org/simple

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test hostile coverage bench lint format generate check-generated protos proto-baseline \
	migrate lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(SYNCED) ## serve on 127.0.0.1:50051 with an embedded PostgreSQL (LATCHKEY_LISTEN, LATCHKEY_DATABASE_URL)
	@exec $(BIN)/latchkey-server serve

demo: $(SYNCED) ## see a key's whole life on a server of its own (TRACE=file, ENDING_AT=instant)
	@PYTHONPATH=clients/python $(BIN)/python -m examples.demo \
		$(if $(TRACE),--trace '$(TRACE)') $(if $(ENDING_AT),--ending-at '$(ENDING_AT)')

# The hostile suite has the machine to itself: it is about who waits for whom.
PYTEST := pytest -n 2 --dist worksteal --ignore=tests/hostile

test: $(SYNCED) ## run the tests and tell what they cover (ARGS="-k words" to choose, PLAIN=1 to measure nothing)
ifdef PLAIN
	$(BIN)/$(PYTEST) $(ARGS)
else
	@rm -rf .coverage
	$(BIN)/coverage run -m $(PYTEST) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@echo "Lines and branches covered: $$($(BIN)/coverage report --format=total --include='$(DOMAIN)') % of domain," \
		"$$($(BIN)/coverage report --format=total) % of all (make coverage lists the others)"
endif

hostile: $(SYNCED) ## run the attacks of one caller on a server, with another one beside them
	$(BIN)/pytest tests/hostile $(ARGS)

coverage: $(SYNCED) ## list what the last `make test` did not cover, and fail if that is too much
	$(BIN)/coverage report --include='$(DOMAIN)' --fail-under=100
	$(BIN)/coverage report --fail-under=96

bench: $(SYNCED) ## measure what verifications cost, beside an empty handler (ARGS="--only verify_cached --pairs 3")
	@GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python -m tests.bench $(ARGS)

lint: $(SYNCED) $(GOOGLEAPIS) ## check style, types, layers, protos and what they break, generated code, the lock file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint proto
	$(BIN)/$(BREAKING)
	@$(MAKE) --no-print-directory check-generated
	$(PUBLIC_UV) lock --check $(PUBLIC_INDEX)
	@! grep -nE '(url|registry) = "' uv.lock | grep -vE '"https://(pypi\.org/simple|files\.pythonhosted\.org/[^"]*)"'

format: $(SYNCED) $(GOOGLEAPIS) ## format and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format -w proto --path proto/latchkey

generate: $(SYNCED) $(GOOGLEAPIS) ## write the Python code of the protos into clients/python
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && $(call protoc,$$new) \
		&& rm -rf clients/python/$(GENERATED) && cp -r "$$new/$(GENERATED)" clients/python/$(GENERATED)

check-generated: $(SYNCED) $(GOOGLEAPIS) ## fail if the generated code is not what the protos say
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && $(call protoc,$$new) \
		&& { diff -r -x __pycache__ "$$new/$(GENERATED)" clients/python/$(GENERATED) \
		|| { echo 'The generated code differs from the protos: run make generate.' >&2; exit 1; }; }

protos: check-generated ## pack the protos, those that they import and their descriptors into dist/latchkey-protos.tar.gz
	@rm -rf $(RELEASED) && mkdir -p $(RELEASED)
	$(BIN)/buf export proto --path proto/latchkey --path $(GOOGLEAPIS)/google/rpc/error_details.proto -o $(RELEASED)
	cp proto/README.md proto/buf.gen.yaml proto/service_config.json LICENSE $(RELEASED)
	cp clients/python/$(GENERATED)/descriptors.binpb $(RELEASED)/latchkey.binpb
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
		-C dist -cf $(RELEASED).tar latchkey-protos
	gzip -9nf $(RELEASED).tar

proto-baseline: $(SYNCED) $(GOOGLEAPIS) ## take the protos as what later ones must be compatible with (BREAK=1 even if they are not)
	$(if $(BREAK),@,$(BIN)/$(BREAKING))
	$(BIN)/buf build proto --path proto/latchkey --exclude-source-info -o $(BASELINE)

migrate: $(SYNCED) ## bring the database's schema up to date
	@exec $(BIN)/latchkey-server migrate

lock: $(UV) ## choose dependency versions anew within pyproject.toml (ARGS="--upgrade" for the newest)
	$(PUBLIC_UV) lock $(PUBLIC_INDEX) $(ARGS)

clean: ## remove the environment and caches; the data in .latchkey/ stays
	rm -rf .venv dist $(GOOGLEAPIS) .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find server clients/python tests -name __pycache__ -prune -exec rm -rf {} +

# $(call protoc,directory): messages of every proto of ours, stubs of those that hold a service, one package. And the
# descriptors of all, with comments, which reflection serves; error_details, because our errors carry them.
# only_async is what mypy-protobuf 5.1 reads; its page says async_only, which does nothing.
PROTOC := $(BIN)/python -m grpc_tools.protoc -I proto -I $(GOOGLEAPIS)
protoc = $(PROTOC) --plugin=$(BIN)/protoc-gen-mypy --python_out=$(1) --mypy_out=quiet:$(1) \
		$(sort $(wildcard proto/$(GENERATED)/*.proto)) \
	&& $(PROTOC) --plugin=$(BIN)/protoc-gen-mypy_grpc --grpc_python_out=$(1) --mypy_grpc_out=quiet,only_async:$(1) \
		$(sort $(wildcard proto/$(GENERATED)/*_service.proto)) \
	&& $(PROTOC) --include_imports --include_source_info --descriptor_set_out=$(1)/$(GENERATED)/descriptors.binpb \
		$(sort $(wildcard proto/$(GENERATED)/*.proto)) google/rpc/error_details.proto \
	&& echo '"""The code generated from the protos of latchkey.v1."""' >$(1)/$(GENERATED)/__init__.py

# What keeps an environment from being made, in one line, or nothing.
trouble = $(shell \
	if ! $(PYTHON) -c '' >/dev/null 2>&1; then \
		echo '$(PYTHON) is missing: install Python 3.11 or newer'; \
	elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), too old: install Python 3.11 or newer, then name it: make PYTHON=python3.11"; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo '$(PYTHON) cannot make virtual environments: install its venv package, as in apt-get install python3-venv'; \
	fi)

$(UV):
	$(if $(trouble),$(error $(trouble)))
	@echo 'Making .venv …'
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(SYNCED): $(UV) uv.lock pyproject.toml clients/python/pyproject.toml
	@echo 'Installing what uv.lock names into .venv …'
	@$(BIN)/uv sync --frozen --quiet
	@touch $@

# buf wants the protos that ours import as files: copied, so that nothing but PyPI is needed.
$(GOOGLEAPIS): $(SYNCED)
	@rm -rf $@
	@google=$$($(BIN)/python -c 'import google.rpc; print(google.rpc.__path__[0])')/.. && for package in api rpc type; do \
		mkdir -p $@/google/$$package && cp "$$google/$$package/"*.proto $@/google/$$package || exit 1; done
	@touch $@

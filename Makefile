# offload.h needs no build: copy the header. This file builds, demonstrates and tests what comes with it.
# `make help` lists the targets. V=1 shows the commands. CC, CPPFLAGS, CFLAGS, LDFLAGS, PREFIX, DESTDIR are honoured.

PREFIX  ?= /usr/local
CFLAGS  ?= -O2 -g
INSTALL ?= install
FORMAT  ?= clang-format

STRICT  := -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
ASAN    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
TSAN    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
Q       := $(if $(V),,@)
say      = @$(if $(V),:,printf '  %-7s %s\n' '$(1)' '$@')

# A program's libraries, defines and include paths stand in the compile line at its top, and nowhere else.
words_of = $(shell sed -n '/^[ */]*cc .*\.c/{ s/^[ */]*//; p; q; }' $(1) | tr ' ' '\n' | grep -E '^-([lDI]|pthread)')
depend   = -MMD -MP -MF $@.d -MT $@
compile  = $(CC) -std=c11 $(STRICT) $(CPPFLAGS) $(2) -I. $(depend) $(1) -o $@ $(LDFLAGS) $(call words_of,$(1))

EXAMPLES := $(patsubst %.c,build/%,$(wildcard examples/*.c))
BENCHES  := $(patsubst %.c,build/%,$(wildcard bench/*.c))
TOOLS    := $(patsubst %.c,build/%,$(wildcard tools/*.c))
PROGRAMS := $(EXAMPLES) $(BENCHES) $(TOOLS)

# Tests are built to build/tests/NAME; what is built several ways has a suffix.
CRITERION := $(patsubst tests/criterion/%.c,build/tests/%,$(wildcard tests/criterion/*.c))
PLAIN     := $(patsubst tests/plain/%.c,build/tests/%,$(wildcard tests/plain/*.c))
SIM       := $(patsubst tests/sim/%.c,build/tests/%,$(wildcard tests/sim/*.c))
TESTS     := $(CRITERION) $(PLAIN:%=%.asan) $(PLAIN:%=%.tsan) $(PLAIN:%=%.valgrind) $(SIM) $(SIM:%=%.isal) \
             $(EXAMPLES:build/examples/%=build/asan/%)

# As many at a time as there are cores, unless make was told otherwise.
JOBS   = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
SETUP  = CC='$(CC)' CPPFLAGS='$(CPPFLAGS)' CFLAGS='$(CFLAGS)' LDFLAGS='$(LDFLAGS)' sh tools/setup.sh
SUB    = --no-print-directory $(if $(V),,-s) $(JOBS)

# Each of these is tests/NAME/run.sh (sim-bugs: tests/sim/bugs/run.sh), which builds what it needs and has --help.
AREAS  = sim sim-bugs torture model fuzz soak coverage mutation sanitizers testing-report
AREA   = CC='$(CC)' CPPFLAGS='$(CPPFLAGS)' LDFLAGS='$(LDFLAGS)' bash tests/area.sh

.DELETE_ON_ERROR:
.PHONY: all build setup demo test bench bench-device calibrate install uninstall format check-format clean help programs tests $(AREAS)

all: build

help: ## this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'
	@echo 'Variables: V=1 shows the commands, T=NAME names one suite for test; CC CPPFLAGS CFLAGS LDFLAGS PREFIX DESTDIR'

build: ## examples, benchmarks and tools, to build/ (all is the same)
	@$(SETUP) --check build
	@$(MAKE) $(SUB) programs

setup: ## install what demo and test need, through the system's packages
	@$(SETUP) demo test

demo: ## set up, build, and compare a server with and without offloading
	@$(SETUP) demo
	@$(MAKE) $(SUB) programs
	@sh tools/demo.sh

test: ## set up, build and run all tests; T=NAME: one suite
	@$(SETUP) test
	@bash tests/run.sh --check $(T)
	@mkdir -p build/test-logs
	@{ $(MAKE) $(SUB) -k `bash tests/run.sh --targets $(T)` 2>&1 || :; } | tee build/test-logs/build.log
	@bash tests/run.sh $(T)

sim: ## random programs on the simulated kernel, tens of thousands; SEED=N replays one
	@$(SETUP) sim
	@$(AREA) sim $(if $(SEED),--seed $(SEED))

sim-bugs: ## plant bugs in offload.h: the simulator must find each
	@$(SETUP) sim
	@$(AREA) sim-bugs

torture: ## fail each system call and each allocation in turn
	@$(SETUP) torture
	@$(AREA) torture

model: ## check rings, wake-up and sleep under all interleavings: Relacy and Spin
	@$(SETUP) model
	@$(AREA) model

fuzz: ## fuzz policy, codec and the example's parser; T=MINUTES
	@$(SETUP) fuzz
	@$(AREA) fuzz $(if $(T),--minutes $(T))

soak: ## a server under load, watched for growth; T=MINUTES
	@$(SETUP) soak
	@$(AREA) soak $(if $(T),--minutes $(T))

coverage: ## lines, branches and MC/DC of offload.h, and all that no test reaches
	@$(SETUP) coverage
	@$(AREA) coverage

mutation: ## change each condition of offload.h in turn: a test must fail. Up to an hour; SECTION=NAME, SAMPLE=N
	@$(SETUP) mutation
	@$(AREA) mutation $(if $(SECTION),--section '$(SECTION)') $(if $(SAMPLE),--sample $(SAMPLE))

sanitizers: ## both compilers, two optimisations, each sanitizer and valgrind
	@$(SETUP) sanitizers
	@$(AREA) sanitizers

testing-report: ## renew the figures in TESTING.md from the last results in build/
	@python3 tools/testing_report.py

bench: ## print what things cost on this machine
	@$(SETUP) --check build
	@$(MAKE) $(SUB) build/bench/core
	@build/bench/core

bench-device: ## the evaluation with emulated devices: build/bench/device-report/report.md. Some minutes; OPS=N
	@$(SETUP) bench-device
	@$(MAKE) $(SUB) build/bench/device
	@build/bench/device $(if $(OPS),--ops $(OPS))
	@python3 tools/device_report.py

calibrate: ## measure from which sizes offloading pays here; tables, plots and a policy in build/calibrate
	@$(SETUP) build calibrate
	@$(MAKE) $(SUB) build/tools/calibrate
	@build/tools/calibrate

install: ## copy offload.h to PREFIX/include (default /usr/local), below DESTDIR
	$(INSTALL) -d '$(DESTDIR)$(PREFIX)/include'
	$(INSTALL) -m 644 offload.h '$(DESTDIR)$(PREFIX)/include/offload.h'

uninstall: ## remove it again
	rm -f '$(DESTDIR)$(PREFIX)/include/offload.h'

# offload.h itself is laid out by hand.
SOURCES = $(wildcard examples/*.[ch] bench/*.[ch] tools/*.[ch] tests/*/*.[ch])

format: ## lay out examples, benchmarks, tools and tests by .clang-format
	$(FORMAT) -i $(SOURCES)

check-format: ## say what format would change
	$(FORMAT) --dry-run --Werror $(SOURCES)

clean: ## remove build/
	rm -rf build

programs: $(PROGRAMS)

tests: $(TESTS)

# A recipe removes its product first, so that a failed build leaves none of an earlier one behind to be run.
define begin
@mkdir -p $(@D)
@rm -f $@
$(call say,$(1))
endef

$(PROGRAMS): build/%: %.c Makefile
	$(call begin,CC)
	$(Q)$(call compile,$<,$(CFLAGS))

$(CRITERION): build/tests/%: tests/criterion/%.c Makefile
	$(call begin,ASAN)
	$(Q)$(call compile,$<,$(ASAN)) -Wl,--as-needed -lcriterion

$(SIM): build/tests/%: tests/sim/%.c Makefile
	$(call begin,ASAN)
	$(Q)$(call compile,$<,$(ASAN))

$(SIM:%=%.isal): build/tests/%.isal: tests/sim/%.c Makefile
	$(call begin,ASAN)
	$(Q)$(call compile,$<,$(ASAN) -DOFFLOAD_ISAL) -lisal

$(PLAIN:%=%.asan): build/tests/%.asan: tests/plain/%.c Makefile
	$(call begin,ASAN)
	$(Q)$(call compile,$<,$(ASAN))

$(PLAIN:%=%.tsan): build/tests/%.tsan: tests/plain/%.c Makefile
	$(call begin,TSAN)
	$(Q)$(call compile,$<,$(TSAN))

$(PLAIN:%=%.valgrind): build/tests/%.valgrind: tests/plain/%.c Makefile
	$(call begin,CC)
	$(Q)$(call compile,$<,-O1 -g)

build/asan/%: examples/%.c Makefile
	$(call begin,ASAN)
	$(Q)$(call compile,$<,$(ASAN))

-include $(wildcard $(PROGRAMS:%=%.d) $(TESTS:%=%.d))

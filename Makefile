# Mayfly. `make help` lists what can be made.
#
# Variants, each in build/<variant>/:
#   release  the three binaries, static-pie musl, hardened: what is installed, run and measured
#   check    the test programs, glibc (cmocka is only there as a shared library)
#   asan     test programs and mayfly-vmm under AddressSanitizer and UndefinedBehaviorSanitizer
#   tsan     the same under ThreadSanitizer
#   coverage test programs and mayfly-vmm that count which lines ran
#   fuzz     the fuzz targets: clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer
VARIANT ?= release
BUILD ?= build
OUT := $(BUILD)/$(VARIANT)
PREFIX ?= /usr/local
ARCH := $(shell uname -m)
VERSION := 0.1.0
T ?=
# V=1 shows the commands themselves.
V ?=
Q := $(if $(V),,@)
say = $(if $(V),,@echo '  $(1)  $@')
CMD ?= uname -a

WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Werror
CPPFLAGS := -I. -D_GNU_SOURCE -DMAYFLY_VERSION='"$(VERSION)"'
CFLAGS_common := -std=gnu11 -g $(WARNINGS) -fno-strict-aliasing -fmacro-prefix-map=$(CURDIR)/= -MMD -MP

# musl's headers first; the kernel's and the libraries' come after all of them. Its ioctl takes the request as an int,
# so every ioctl number with the top bit set would warn; the other variants keep the warning. Nothing unwinds the stack
# in the programs, and a debugger has .debug_frame: no .eh_frame, which would be loaded. The API's tables are without the
# texts of its document (api/schema.h).
CFLAGS_release := -O2 -fPIE -fstack-protector-strong -fcf-protection=full -ftrivial-auto-var-init=zero \
    -ffunction-sections -fdata-sections -fno-plt -Wno-sign-conversion \
    -fno-asynchronous-unwind-tables -malign-data=abi -DMAYFLY_WITHOUT_OPENAPI
CC_release := musl-gcc -idirafter /usr/include -idirafter /usr/include/$(ARCH)-linux-gnu
CFLAGS_check := -O1 -fstack-protector-strong -D_FORTIFY_SOURCE=2
CC_check := gcc
CFLAGS_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
CC_asan := gcc
CFLAGS_tsan := -O1 -fno-omit-frame-pointer -fsanitize=thread
CC_tsan := gcc
# What ran before an exec is counted then, and not again: a child that shares our memory would take our counts with it.
CFLAGS_coverage := -O0 --coverage -fprofile-update=atomic -Dvfork=fork
CC_coverage := gcc
CFLAGS_fuzz := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
CC_fuzz := clang
COMPILE = $(CC_$(VARIANT)) $(CPPFLAGS) $(CFLAGS_common) $(CFLAGS_$(VARIANT))

# Debian's musl-gcc makes a dynamic file of -static-pie: name the start files and musl's libc instead.
MUSL := /usr/lib/$(ARCH)-linux-musl
LIBGCC := $(shell gcc -print-libgcc-file-name)
ARCHIVES := /usr/lib/$(ARCH)-linux-gnu
LINK_release = gcc -nostdlib -static-pie -Wl,-z,relro,-z,now,-z,noexecstack,--gc-sections,--no-dynamic-linker \
    $(MUSL)/rcrt1.o $(MUSL)/crti.o $(1) $(2) $(MUSL)/libc.a $(LIBGCC) $(MUSL)/libc.a $(MUSL)/crtn.o
LIBS_release_vmm := $(addprefix $(ARCHIVES)/,libyajl_s.a libhttp_parser.a liburing.a)
LIBS_release_cli := $(addprefix $(ARCHIVES)/,libyajl_s.a libhttp_parser.a)
LINK_glibc = $(CC_$(VARIANT)) $(CFLAGS_$(VARIANT)) $(1) $(2)
LINK_check = $(LINK_glibc)
LINK_asan = $(LINK_glibc)
LINK_tsan = $(LINK_glibc)
LINK_fuzz = $(LINK_glibc)
LINK_coverage = $(LINK_glibc)
# Debian's shared liburing leaves out symbols that its archive has.
LIBS_glibc := -lyajl -lhttp_parser -l:liburing.a -lcap-ng -lpthread

SHIMS_release := $(OUT)/vmm/base/musl_shims.o
base_sources := $(filter-out vmm/base/musl_shims.c,$(wildcard vmm/base/*.c))
vmm_sources := $(filter-out vmm/main.c, \
    $(wildcard vmm/*.c vmm/virtio/*.c vmm/backend/*.c vmm/mmds/*.c vmm/arch/*.c vmm/arch/$(ARCH)/*.c))
api_sources := $(filter-out $(if $(filter release,$(VARIANT)),api/openapi.c),$(wildcard api/*.c))
client_sources := $(wildcard api/client/*.c)
cli_sources := $(wildcard api/cli/*.c)
init_sources := $(filter-out rootfs/init/main.c,$(wildcard rootfs/init/*.c))
objects = $(patsubst %.c,$(OUT)/%.o,$(1))

.DEFAULT_GOAL := all
.PHONY: all run test bench install clean help guest programs checks format openapi tools
.DELETE_ON_ERROR:
.SECONDARY:

all: programs ## build mayfly, mayfly-vmm and mayfly-jailer (static)

programs: $(BUILD)/release/mayfly $(BUILD)/release/mayfly-vmm $(BUILD)/release/mayfly-jailer

# Without it every compilation would fail, and none say why.
tools:
	@command -v musl-gcc >/dev/null || { scripts/setup --check --for build; \
	    echo 'make: musl-gcc is not installed; scripts/setup --for build installs all that make needs' >&2; exit 1; }

$(OUT)/%.o: %.c Makefile | tools
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(COMPILE) -c -o $@ $<

$(OUT)/libbase.a: $(call objects,$(base_sources))
$(OUT)/libvmm.a: $(call objects,$(vmm_sources))
$(OUT)/libapi.a: $(call objects,$(api_sources))
$(OUT)/libclient.a: $(call objects,$(client_sources))
$(OUT)/libcli.a: $(call objects,$(filter-out api/cli/main.c,$(cli_sources)))
$(OUT)/libinit.a: $(call objects,$(init_sources))
$(OUT)/lib%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)ar rcs $@ $^

ifeq ($(VARIANT),release)
$(OUT)/mayfly-vmm: $(OUT)/vmm/main.o $(OUT)/libapi.a $(OUT)/libvmm.a $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(LIBS_release_vmm)) -o $@
$(OUT)/mayfly: $(OUT)/api/cli/main.o $(OUT)/libcli.a $(OUT)/libclient.a $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(LIBS_release_cli)) -o $@
else
$(OUT)/mayfly-vmm: $(OUT)/vmm/main.o $(OUT)/libapi.a $(OUT)/libvmm.a $(OUT)/libbase.a
	$(call say,LD)
	$(Q)$(call LINK_glibc,$^,$(LIBS_glibc)) -o $@
$(OUT)/mayfly: $(OUT)/api/cli/main.o $(OUT)/libcli.a $(OUT)/libclient.a $(OUT)/libbase.a
	$(call say,LD)
	$(Q)$(call LINK_glibc,$^,$(LIBS_glibc)) -o $@
ifeq ($(VARIANT),coverage)
$(OUT)/mayfly-vmm: $(OUT)/tests/coverage/dump.o
$(OUT)/mayfly-vmm: LINK_glibc += -Wl,--wrap=_exit,--wrap=raise
endif
$(BUILD)/release/%: FORCE
	@$(MAKE) --no-print-directory VARIANT=release $@
endif
.PHONY: FORCE
FORCE:

# Test programs: every tests/unit/test_*.c and tests/machine/test_*.c is one cmocka program.
unit_tests := $(patsubst %.c,$(OUT)/%,$(wildcard tests/unit/test_*.c))
jail_tests := $(patsubst %.c,$(OUT)/%,$(wildcard tests/jail/test_*.c))
machine_tests := $(patsubst %.c,$(OUT)/%,$(wildcard tests/machine/test_*.c))
jail_support := $(patsubst %.c,$(OUT)/%.o,$(filter-out $(wildcard tests/jail/test_*.c),$(wildcard tests/jail/*.c)))
test_libraries := $(OUT)/libapi.a $(OUT)/libcli.a $(OUT)/libclient.a $(OUT)/libinit.a $(OUT)/libjailer.a $(OUT)/libvmm.a $(OUT)/libbase.a
test_support := $(patsubst %.c,$(OUT)/%.o,$(filter-out $(wildcard tests/unit/test_*.c),$(wildcard tests/unit/*.c)))
# Machine and jail tests talk to whole processes: of the units they take the frame and taps, of the libraries the client.
machine_support := $(addprefix $(OUT)/tests/unit/,harness.o host_tap.o) \
    $(patsubst %.c,$(OUT)/%.o,$(filter-out $(wildcard tests/machine/test_*.c),$(wildcard tests/machine/*.c)))
machine_libraries := $(OUT)/libapi.a $(OUT)/libclient.a $(OUT)/libvmm.a $(OUT)/libbase.a

$(OUT)/tests/unit/test_%: $(OUT)/tests/unit/test_%.o $(test_support) $(test_libraries)
	$(call say,LD)
	$(Q)$(call LINK_glibc,$(filter %.o,$^) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group,-lcmocka $(LIBS_glibc)) -o $@
$(OUT)/tests/machine/test_%: $(OUT)/tests/machine/test_%.o $(machine_support) $(machine_libraries)
	$(call say,LD)
	$(Q)$(call LINK_glibc,$(filter %.o,$^) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group,-lcmocka $(LIBS_glibc)) -o $@
# The jail tests run the release binaries whatever the variant, and a static probe in place of the VMM.
$(OUT)/tests/jail/test_%: $(OUT)/tests/jail/test_%.o $(jail_support) $(machine_support) $(machine_libraries)
	$(call say,LD)
	$(Q)$(call LINK_glibc,$(filter %.o,$^) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group,-lcmocka $(LIBS_glibc)) -o $@
$(BUILD)/release/tests/jail/probe: $(wildcard tests/jail/probe/*.c) tests/jail/probe/probe.h
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC_release) $(CPPFLAGS) -std=gnu11 -O1 -static -Wall -Wextra -Werror -o $@ $(filter %.c,$^)
comma := ,

checks: $(unit_tests) $(machine_tests) ## build the test programs of VARIANT
ifeq ($(VARIANT),check)
checks: $(jail_tests) $(BUILD)/release/tests/jail/probe
endif
ifneq ($(filter asan tsan coverage,$(VARIANT)),)
checks: $(OUT)/mayfly-vmm $(OUT)/mayfly
endif

-include tests/guest/guest.mk api/api.mk scripts/bench_tool/bench.mk
include jailer/jailer.mk
include tests/fuzz/fuzz.mk tests/coverage/coverage.mk

guest: ## build the guest: kernel (cached), initramfs, root image
	@scripts/setup --for build
	rootfs/guest $(BUILD)/guest

run: ## boot a microVM, run CMD in it, show its output and where the milliseconds went
	@scripts/setup --for run
	@$(MAKE) --no-print-directory -s programs guest
	@scripts/run -- $(CMD)

# What a run of T needs: all of it, or what its suite needs.
suite := $(firstword $(subst /, ,$(T)))
needs = $(if $(suite),$(filter $(1),$(suite)),$(1))

test: ## run every test; T=suite[/file[/case]] runs a part
	@scripts/setup --for test
	@$(MAKE) --no-print-directory -s -j2 programs guests $(if $(call needs,linux),guest)
	@$(if $(call needs,asan),$(MAKE) --no-print-directory -s -j2 VARIANT=asan checks)
	@$(if $(call needs,tsan),$(MAKE) --no-print-directory -s -j2 VARIANT=tsan checks)
	@$(if $(call needs,fuzz),$(MAKE) --no-print-directory -s -j2 VARIANT=fuzz fuzz-targets)
	@$(MAKE) --no-print-directory -s -j2 VARIANT=check checks
	@tests/run $(T)

bench: ## measure against the peers; prints a table, draws build/bench.svg
	@scripts/setup --for bench
	@$(MAKE) --no-print-directory -s programs guests guest bench-tool
	@scripts/bench

# `mayfly run` looks for the guest in ../share/mayfly, seen from where it is.
guest_files := $(addprefix $(BUILD)/guest/,vmlinux initramfs.cpio rootfs.erofs cmdline)
guest_built = $(wildcard $(BUILD)/guest/vmlinux)
install: programs $(compiler) ## install into $(DESTDIR)$(PREFIX), with the guest if it is built
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/man/man1'
	install -m 755 $(BUILD)/release/mayfly $(BUILD)/release/mayfly-vmm \
	    $(BUILD)/release/mayfly-jailer $(compiler) '$(DESTDIR)$(PREFIX)/bin'
	install -m 644 api/cli/mayfly.1 vmm/mayfly-vmm.1 jailer/mayfly-jailer.1 '$(DESTDIR)$(PREFIX)/share/man/man1'
	$(if $(guest_built),install -d '$(DESTDIR)$(PREFIX)/share/mayfly')
	$(if $(guest_built),install -m 644 $(guest_files) '$(DESTDIR)$(PREFIX)/share/mayfly')
	$(if $(guest_built),,@echo 'The guest is not built, hence not installed: "make guest install" does both.')

format: ## lay the sources out by .clang-format
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean: ## remove build/
	rm -rf $(BUILD)

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

-include $(shell find $(OUT) -name '*.d' 2>/dev/null)

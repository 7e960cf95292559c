# Fuzz targets: every tests/fuzz/fuzz_*.c is a program of libFuzzer, in the variant `fuzz` (clang, ASan and UBSan).
fuzz_targets := $(patsubst %.c,$(OUT)/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_support := $(OUT)/tests/fuzz/fuzz.o $(OUT)/tests/fuzz/device.o
TIME ?= 60

$(OUT)/tests/fuzz/fuzz_%: $(OUT)/tests/fuzz/fuzz_%.o $(fuzz_support) $(OUT)/libapi.a $(OUT)/libvmm.a $(OUT)/libbase.a
	$(call say,LD)
	$(Q)$(call LINK_glibc,-fsanitize=fuzzer $(filter %.o,$^) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group,$(LIBS_glibc)) -o $@

# Its back end has its turn when the front end waits.
$(OUT)/tests/fuzz/fuzz_vhost_user: LINK_glibc += -Wl,--wrap=poll,--wrap=unix_socket_connect,--wrap=clock_monotonic_us

.PHONY: fuzz
fuzz: ## fuzz each target for TIME seconds (60); T=target for one
	@scripts/setup --for test
	@$(MAKE) --no-print-directory -s -j2 VARIANT=fuzz fuzz-targets
	@tests/fuzz/run --time $(TIME) $(T)

.PHONY: fuzz-targets
fuzz-targets: $(fuzz_targets)

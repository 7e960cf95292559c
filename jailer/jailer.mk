# The jailer, and the compiler of seccomp rules: a tool of the build (libseccomp, glibc) that is installed, too.
jailer_sources := $(filter-out jailer/main.c,$(wildcard jailer/*.c))
compiler := $(BUILD)/mayfly-seccomp-compiler
compiler_sources := $(wildcard jailer/compiler/*.c) vmm/base/cleanup.c

$(compiler): $(compiler_sources) $(wildcard jailer/compiler/*.h) vmm/base/seccomp.h
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)gcc $(CPPFLAGS) -std=gnu11 -O1 $(WARNINGS) -o $@ $(compiler_sources) -lseccomp

$(BUILD)/filters/%.bin: jailer/%.rules $(compiler)
	@mkdir -p $(@D)
	$(call say,BPF)
	$(Q)$(compiler) $< $@
$(BUILD)/filters/%.bin: vmm/%.rules $(compiler)
	@mkdir -p $(@D)
	$(call say,BPF)
	$(Q)$(compiler) $< $@

$(OUT)/jailer/base_filter.o: CPPFLAGS += -DBASE_FILTER_PATH='"$(BUILD)/filters/base.bin"'
$(OUT)/jailer/base_filter.o: $(BUILD)/filters/base.bin

$(OUT)/libjailer.a: $(call objects,$(jailer_sources))

ifeq ($(VARIANT),release)
$(OUT)/mayfly-jailer: $(OUT)/jailer/main.o $(OUT)/libjailer.a $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(ARCHIVES)/libcap-ng.a) -o $@
endif

# The jailer, and the compiler of seccomp rules: a tool of the build (libseccomp, glibc) that is installed, too.
jailer_sources := $(filter-out jailer/main.c,$(wildcard jailer/*.c))
compiler := $(BUILD)/mayfly-seccomp-compiler
compiler_sources := $(wildcard jailer/compiler/*.c) vmm/base/cleanup.c

$(compiler): $(compiler_sources) $(wildcard jailer/compiler/*.h) vmm/base/seccomp.h
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)gcc $(CPPFLAGS) -std=gnu11 -O1 $(WARNINGS) -o $@ $(compiler_sources) -lseccomp

$(BUILD)/filters/%.bin: jailer/%.rules vmm/vmm.rules $(compiler)
	@mkdir -p $(@D)
	$(call say,BPF)
	$(Q)$(compiler) --with vmm/vmm.rules $< $@
$(BUILD)/filters/%.bin: vmm/%.rules $(compiler)
	@mkdir -p $(@D)
	$(call say,BPF)
	$(Q)$(compiler) $< $@

# Every system call's name by number, each with a NUL: the log names what a filter forbids.
$(BUILD)/filters/syscall_names.bin: jailer/jailer.mk
	@mkdir -p $(@D)
	$(Q)echo '#include <sys/syscall.h>' | gcc -E -dM - | awk '$$2 ~ /^__NR_/ && $$3 ~ /^[0-9]+$$/ { \
	    name[$$3] = substr($$2, 6); if ($$3 + 0 > last) last = $$3 + 0 } \
	    END { for (i = 0; i <= last; i++) print name[i] }' | tr '\n' '\0' > $@

$(OUT)/vmm/filters.o: CPPFLAGS += -DVMM_FILTERS_PATH='"$(BUILD)/filters/vmm.bin"'
$(OUT)/vmm/filters.o: $(BUILD)/filters/vmm.bin
$(OUT)/vmm/syscall_name.o: CPPFLAGS += -DSYSCALL_NAMES_PATH='"$(BUILD)/filters/syscall_names.bin"'
$(OUT)/vmm/syscall_name.o: $(BUILD)/filters/syscall_names.bin
$(OUT)/jailer/base_filter.o: CPPFLAGS += -DBASE_FILTER_PATH='"$(BUILD)/filters/base.bin"'
$(OUT)/jailer/base_filter.o: $(BUILD)/filters/base.bin

$(OUT)/libjailer.a: $(call objects,$(jailer_sources))

ifeq ($(VARIANT),release)
$(OUT)/mayfly-jailer: $(OUT)/jailer/main.o $(OUT)/libjailer.a $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(ARCHIVES)/libcap-ng.a) -o $@
endif

# The stop-watch of scripts/bench: static, so that it runs in the emulated host, too.
.PHONY: bench-tool
bench-tool: $(addprefix $(BUILD)/release/,measure count load vsock_peer)

ifeq ($(VARIANT),release)
$(OUT)/measure: $(addprefix $(OUT)/scripts/bench_tool/,measure.o measured_vmm.o counters.o) $(OUT)/libclient.a $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(LIBS_release_cli)) -o $@
$(OUT)/count: $(OUT)/scripts/bench_tool/count.o $(OUT)/scripts/bench_tool/counters.o $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(LIBS_release_cli)) -o $@
# What a Linux guest does, and the host's end of it.
$(OUT)/load: scripts/bench_tool/load.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC_release) $(CPPFLAGS) -std=gnu11 -O2 -static $(WARNINGS) -o $@ $<
# Both ends of a vsock connection, as in the tests.
$(OUT)/vsock_peer: tests/linux/vsock_peer.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC_release) $(CPPFLAGS) -std=gnu11 -O2 -static $(WARNINGS) -o $@ $<
endif

# Freestanding guests that drive one device for the bench; entered by PVH, too.
bench_guests := $(patsubst scripts/bench_tool/guest/%.c,%,$(filter-out %/driver.c,$(wildcard scripts/bench_tool/guest/*.c)))
BENCH_GUESTS := $(GUESTS)/bench
bench_guest_lib := $(BENCH_GUESTS)/driver.o $(BENCH_GUESTS)/entry.o $(addprefix $(GUESTS)/lib/,start.o guest.o virtio.o)

bench-tool: $(bench_guests:%=$(BENCH_GUESTS)/%.elf)
$(BENCH_GUESTS)/%.o: scripts/bench_tool/guest/%.c
	@mkdir -p $(@D)
	$(GUEST_CC) $(GUEST_CFLAGS) -O2 -c -o $@ $<
$(BENCH_GUESTS)/%.o: scripts/bench_tool/guest/%.S
	@mkdir -p $(@D)
	$(GUEST_CC) $(GUEST_CFLAGS) -c -o $@ $<
$(bench_guests:%=$(BENCH_GUESTS)/%.elf): $(BENCH_GUESTS)/%.elf: $(BENCH_GUESTS)/%.o $(bench_guest_lib) tests/guest/guest.ld
	$(GUEST_CC) $(GUEST_LDFLAGS) $(filter %.o,$^) -o $@
-include $(wildcard $(BENCH_GUESTS)/*.d)

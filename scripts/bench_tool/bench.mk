# The stop-watch of scripts/bench: static, so that it runs in the emulated host, too.
.PHONY: bench-tool
bench-tool: $(BUILD)/release/measure $(BUILD)/release/vsock_peer

ifeq ($(VARIANT),release)
$(OUT)/measure: $(OUT)/scripts/bench_tool/measure.o $(OUT)/libclient.a $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(LIBS_release_cli)) -o $@
# Both ends of a vsock connection, as in the tests.
$(OUT)/vsock_peer: tests/linux/vsock_peer.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC_release) $(CPPFLAGS) -std=gnu11 -O2 -static $(WARNINGS) -o $@ $<
endif

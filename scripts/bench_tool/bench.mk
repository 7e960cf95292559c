# The stop-watch of scripts/bench: static, so that it runs in the emulated host, too.
.PHONY: bench-tool
bench-tool: $(BUILD)/release/measure

ifeq ($(VARIANT),release)
$(OUT)/measure: $(OUT)/scripts/bench_tool/measure.o $(OUT)/libclient.a $(OUT)/libbase.a $(SHIMS_release)
	$(call say,LD)
	$(Q)$(call LINK_release,$^,$(LIBS_release_cli)) -o $@
endif

# The stop-watch of scripts/bench: glibc is fine, it is not what is measured.
.PHONY: bench-tool
bench-tool: $(BUILD)/check/scripts/bench_tool/measure

ifeq ($(VARIANT),check)
$(OUT)/scripts/bench_tool/measure: $(OUT)/scripts/bench_tool/measure.o $(OUT)/libclient.a $(OUT)/libbase.a
	$(call say,LD)
	$(Q)$(call LINK_glibc,$^,$(LIBS_glibc)) -o $@
else
$(BUILD)/check/%: FORCE
	@$(MAKE) --no-print-directory VARIANT=check $@
endif

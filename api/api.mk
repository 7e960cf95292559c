# The OpenAPI document is kept in the tree; tests/unit/test_openapi holds it against the tables.
openapi: ## write api/openapi.yaml from the tables of routes and fields
	@$(MAKE) --no-print-directory -s VARIANT=check $(BUILD)/check/openapi
	$(BUILD)/check/openapi > api/openapi.yaml.new
	mv api/openapi.yaml.new api/openapi.yaml

ifneq ($(VARIANT),release)
$(OUT)/openapi: $(OUT)/api/tools/openapi_main.o $(OUT)/libapi.a $(OUT)/libvmm.a $(OUT)/libbase.a
	$(call LINK_glibc,$^,$(LIBS_glibc)) -o $@
endif

# The guest that `mayfly doctor` asks KVM with.
$(OUT)/libcli.a: $(OUT)/api/cli/kvm_probe_guest.o
$(OUT)/api/cli/kvm_probe_guest.o: api/cli/kvm_probe_guest.S Makefile
	@mkdir -p $(@D)
	$(call say,AS)
	$(Q)$(CC_$(VARIANT)) -I. -MMD -MP -c -o $@ $<

# Freestanding guests: 64-bit ELF images, entered by the Linux 64-bit boot protocol. One program a file; every C file
# is linked with tests/guest/lib, every .S file stands alone.
GUESTS := $(BUILD)/guests
GUEST_CC := gcc
# The hosts that emulate guest code know the general-purpose instructions only: no SSE, no endbr64.
GUEST_CFLAGS := -std=gnu11 -g -Os $(WARNINGS) -I. -ffreestanding -fno-pic -fno-pie -mcmodel=small -mno-red-zone \
    -mgeneral-regs-only -fno-stack-protector -fcf-protection=none -fno-strict-aliasing -fno-asynchronous-unwind-tables \
    -fno-tree-loop-distribute-patterns -fno-delete-null-pointer-checks --param=min-pagesize=0 \
    -fmacro-prefix-map=$(CURDIR)/= -MMD -MP
GUEST_LDFLAGS := -nostdlib -static -no-pie -Wl,-T,tests/guest/guest.ld,--build-id=none,-z,max-page-size=4096 \
    -Wl,-z,noexecstack,--no-warn-rwx-segments

guest_programs := $(patsubst tests/guest/%.c,%,$(wildcard tests/guest/*.c))
guest_bare := $(patsubst tests/guest/%.S,%,$(wildcard tests/guest/*.S))
guest_lib := $(patsubst tests/guest/%,$(GUESTS)/%.o,$(basename $(wildcard tests/guest/lib/*.c tests/guest/lib/*.S)))
guest_images := $(addprefix $(GUESTS)/,$(addsuffix .elf,$(guest_programs) $(guest_bare) first_byte_14m))

.PHONY: guests
guests: $(guest_images) ## build the freestanding test guests

$(GUESTS)/%.o: tests/guest/%.c tests/guest/guest.mk
	@mkdir -p $(@D)
	$(GUEST_CC) $(GUEST_CFLAGS) -c -o $@ $<
$(GUESTS)/%.o: tests/guest/%.S tests/guest/guest.mk
	@mkdir -p $(@D)
	$(GUEST_CC) $(GUEST_CFLAGS) -c -o $@ $<
# As big as a Linux kernel, for the bench: the padding is loaded, never touched.
$(GUESTS)/first_byte_14m.o: tests/guest/first_byte.S tests/guest/guest.mk
	@mkdir -p $(@D)
	$(GUEST_CC) $(GUEST_CFLAGS) -DPADDING=0xe00000 -c -o $@ $<

$(addprefix $(GUESTS)/,$(addsuffix .elf,$(guest_programs))): $(GUESTS)/%.elf: $(GUESTS)/%.o $(guest_lib) tests/guest/guest.ld
	$(GUEST_CC) $(GUEST_LDFLAGS) $(filter %.o,$^) -o $@
$(addprefix $(GUESTS)/,$(addsuffix .elf,$(guest_bare) first_byte_14m)): $(GUESTS)/%.elf: $(GUESTS)/%.o tests/guest/guest.ld
	$(GUEST_CC) $(GUEST_LDFLAGS) $(filter %.o,$^) -o $@

-include $(wildcard $(GUESTS)/*.d $(GUESTS)/lib/*.d)

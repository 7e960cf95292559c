/*
 * ACPI Machine Language, as much as a DSDT of devices needs (ACPI 6.4, chapter 20). A construct that has contents is
 * begun and ended; the number that begins returned goes back into the end.
 */
#pragma once

#include "vmm/arch/x86_64/table_writer.h"

/* Method; ended with aml_end, too. Notify (name, value), within one. */
size_t aml_method_begin(struct table_writer *aml, const char *name, uint8_t argument_count);
void aml_notify(struct table_writer *aml, const char *name, uint8_t value);

/* Scope and Device; `name` is a path of four-letter segments, `\` in front allowed ("\\_SB_"). */
size_t aml_scope_begin(struct table_writer *aml, const char *name);
size_t aml_device_begin(struct table_writer *aml, const char *name);
void aml_end(struct table_writer *aml, size_t begun);

/* Name (name, value). */
void aml_name_integer(struct table_writer *aml, const char *name, uint8_t value);
void aml_name_string(struct table_writer *aml, const char *name, const char *value);
void aml_name_eisa_id(struct table_writer *aml, const char *name, const char *id); /* "PNP0501" */
void aml_name_sleep_package(struct table_writer *aml, const char *name, uint8_t type);

/* Name (_CRS, ResourceTemplate () { ... }), and what goes into it. */
size_t aml_resources_begin(struct table_writer *aml);
void aml_resources_end(struct table_writer *aml, size_t begun);
void aml_resource_memory(struct table_writer *aml, uint32_t base, uint32_t length);
void aml_resource_io(struct table_writer *aml, uint16_t port, uint8_t length);
void aml_resource_interrupt(struct table_writer *aml, uint32_t gsi); /* edge, active high, exclusive */

/* The balloon, and memory that comes and goes. */
#include "api/schema_fields.h"
#include "api/schema_objects.h"

static const struct field balloon_fields[] = {
    {"amount_mib", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct balloon_config, amount_mib), .minimum = 0,
     .maximum = MEM_SIZE_MIB_MAX, DESCRIPTION("How much memory the guest is to give back; at most what it has.")},
    {"deflate_on_oom", FIELD_BOOL, FIELD_REQUIRED, MEMBER(struct balloon_config, deflate_on_oom),
     DESCRIPTION("Whether the guest takes memory back before it kills a process for want of it.")},
    {"stats_polling_interval_s", FIELD_INTEGER, 0, MEMBER(struct balloon_config, stats_polling_interval_s),
     .maximum = UINT16_MAX, DESCRIPTION("Seconds between statistics; 0: there are none.")},
    {"free_page_hinting", FIELD_BOOL, 0, MEMBER(struct balloon_config, free_page_hinting),
     DESCRIPTION("Whether the guest can be asked to name its free pages, which then go back to the host.")},
    {"free_page_reporting", FIELD_BOOL, 0, MEMBER(struct balloon_config, free_page_reporting),
     DESCRIPTION("Whether pages go back to the host whenever the guest has them free for a while.")},
};
const struct schema balloon_schema = {"Balloon", SCHEMA(balloon_fields, struct balloon_config),
                                      DESCRIPTION("Memory that the guest gives back to the host.")};

static const struct field balloon_update_fields[] = {
    {"amount_mib", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct balloon_update, amount_mib), .minimum = 0,
     .maximum = MEM_SIZE_MIB_MAX, DESCRIPTION("How much memory the guest is to give back; at most what it has.")},
};
const struct schema balloon_update_schema = {"BalloonUpdate", SCHEMA(balloon_update_fields, struct balloon_update),
                                             DESCRIPTION("Another size of the balloon.")};

static const struct field balloon_statistics_update_fields[] = {
    {"stats_polling_interval_s", FIELD_INTEGER, FIELD_REQUIRED,
     MEMBER(struct balloon_statistics_update, stats_polling_interval_s), .maximum = UINT16_MAX,
     DESCRIPTION("Seconds between statistics; the first come at once. 0 stays 0, and nothing else becomes it.")},
};
const struct schema balloon_statistics_update_schema = {
    "BalloonStatsUpdate", SCHEMA(balloon_statistics_update_fields, struct balloon_statistics_update),
    DESCRIPTION("Another interval of the statistics.")};

#define TOLD(name_, member)                                                                                            \
    {                                                                                                                  \
        name_, FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct balloon_statistics, member), UNSIGNED_64,                  \
            DESCRIPTION("The balloon's size: what is wanted (target), what the guest says (actual).")                  \
    }
#define STATISTIC(name_, index, description_)                                                                          \
    {                                                                                                                  \
        name_, FIELD_INTEGER, FIELD_OMIT, MEMBER(struct balloon_statistics, value[index]),                             \
            PRESENCE(struct balloon_statistics, given[index]), UNSIGNED_64, DESCRIPTION(description_)                  \
    }
static const struct field balloon_statistics_fields[] = {
    TOLD("target_pages", target_pages),
    TOLD("actual_pages", actual_pages),
    TOLD("target_mib", target_mib),
    TOLD("actual_mib", actual_mib),
    STATISTIC("swap_in", BALLOON_SWAP_IN, "Bytes read from swap."),
    STATISTIC("swap_out", BALLOON_SWAP_OUT, "Bytes written to swap."),
    STATISTIC("major_faults", BALLOON_MAJOR_FAULTS, "Page faults that had to read."),
    STATISTIC("minor_faults", BALLOON_MINOR_FAULTS, "Page faults that did not."),
    STATISTIC("free_memory", BALLOON_FREE_MEMORY, "Bytes that nothing uses."),
    STATISTIC("total_memory", BALLOON_TOTAL_MEMORY, "Bytes of memory."),
    STATISTIC("available_memory", BALLOON_AVAILABLE_MEMORY, "Bytes that programs could have without swapping."),
    STATISTIC("disk_caches", BALLOON_DISK_CACHES, "Bytes that could be given up at once, most of them file caches."),
    STATISTIC("hugetlb_allocations", BALLOON_HUGETLB_ALLOCATIONS, "Huge pages that were had."),
    STATISTIC("hugetlb_failures", BALLOON_HUGETLB_FAILURES, "Huge pages that were not."),
    STATISTIC("oom_kill", BALLOON_OOM_KILL, "Processes killed for want of memory."),
    STATISTIC("alloc_stall", BALLOON_ALLOC_STALL, "Times that somebody waited for memory."),
    STATISTIC("async_scan", BALLOON_ASYNC_SCAN, "Pages looked at for reclaim in the background."),
    STATISTIC("direct_scan", BALLOON_DIRECT_SCAN, "Pages looked at for reclaim by who needed memory."),
    STATISTIC("async_reclaim", BALLOON_ASYNC_RECLAIM, "Pages reclaimed in the background."),
    STATISTIC("direct_reclaim", BALLOON_DIRECT_RECLAIM, "Pages reclaimed by who needed memory."),
};
const struct schema balloon_statistics_schema = {
    "BalloonStats", SCHEMA(balloon_statistics_fields, struct balloon_statistics),
    DESCRIPTION("What the guest says about its memory; what it never told is left out.")};

static const struct field balloon_hinting_start_fields[] = {
    {"acknowledge_on_stop", FIELD_BOOL, 0, MEMBER(struct balloon_hinting_start, acknowledge_on_stop), .initial = 1,
     DESCRIPTION("Whether the guest has its pages back as soon as it has named them all, or when the run is stopped.")},
};
const struct schema balloon_hinting_start_schema = {"BalloonStartCmd",
                                                    SCHEMA(balloon_hinting_start_fields, struct balloon_hinting_start),
                                                    DESCRIPTION("How a run of free page hinting ends.")};

const struct schema balloon_hinting_stop_schema = {"BalloonStopCmd", .size = 1, DESCRIPTION("Nothing.")};

static const struct field balloon_hinting_status_fields[] = {
    {"host_cmd", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct balloon_hinting_status, host_cmd), .maximum = UINT32_MAX,
     DESCRIPTION("0: no run yet, 1: the run is over, else the number of the run.")},
    {"guest_cmd", FIELD_INTEGER, FIELD_NULLABLE, MEMBER(struct balloon_hinting_status, guest_cmd),
     PRESENCE(struct balloon_hinting_status, has_guest_cmd), .maximum = UINT32_MAX,
     DESCRIPTION("The run that the guest is at, 0 when it has named all pages; null before it said so.")},
};
const struct schema balloon_hinting_status_schema = {
    "BalloonHintingStatus", SCHEMA(balloon_hinting_status_fields, struct balloon_hinting_status),
    DESCRIPTION("Where a run of free page hinting is.")};

#define SIZE_MIB .maximum = UINT32_MAX
static const struct field memory_hotplug_fields[] = {
    {"total_size_mib", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct memory_hotplug_config, total_size_mib), SIZE_MIB,
     DESCRIPTION("How much memory there can be; a multiple of slot_size_mib.")},
    {"slot_size_mib", FIELD_INTEGER, 0, MEMBER(struct memory_hotplug_config, slot_size_mib),
     .initial = HOTPLUG_SLOT_SIZE_MIB_DEFAULT, .minimum = HOTPLUG_SLOT_SIZE_MIB_DEFAULT, SIZE_MIB,
     DESCRIPTION("The size of a memslot; a multiple of block_size_mib.")},
    {"block_size_mib", FIELD_INTEGER, 0, MEMBER(struct memory_hotplug_config, block_size_mib),
     .initial = HOTPLUG_BLOCK_SIZE_MIB_DEFAULT, .minimum = HOTPLUG_BLOCK_SIZE_MIB_DEFAULT, SIZE_MIB,
     DESCRIPTION("What comes and goes at a time; a power of two.")},
};
const struct schema memory_hotplug_schema = {"MemoryHotplugConfig",
                                             SCHEMA(memory_hotplug_fields, struct memory_hotplug_config),
                                             DESCRIPTION("Memory that comes and goes while the guest runs.")};

static const struct field memory_hotplug_update_fields[] = {
    {"requested_size_mib", FIELD_INTEGER, FIELD_REQUIRED, MEMBER(struct memory_hotplug_update, requested_size_mib),
     SIZE_MIB, DESCRIPTION("How much of it the guest shall have; a multiple of block_size_mib.")},
};
const struct schema memory_hotplug_update_schema = {"MemoryHotplugSizeUpdate",
                                                    SCHEMA(memory_hotplug_update_fields, struct memory_hotplug_update),
                                                    DESCRIPTION("How much memory to plug.")};

#define STATUS(name, text)                                                                                             \
    {                                                                                                                  \
#name, FIELD_INTEGER, 0, MEMBER(struct memory_hotplug_status, name), UNSIGNED_64, DESCRIPTION(text)            \
    }
static const struct field memory_hotplug_status_fields[] = {
    STATUS(total_size_mib, "As configured."),
    STATUS(slot_size_mib, "As configured."),
    STATUS(block_size_mib, "As configured."),
    STATUS(plugged_size_mib, "What the guest has."),
    STATUS(requested_size_mib, "What it was asked to have."),
};
const struct schema memory_hotplug_status_schema = {"MemoryHotplugStatus",
                                                    SCHEMA(memory_hotplug_status_fields, struct memory_hotplug_status),
                                                    DESCRIPTION("Where the memory that comes and goes is.")};

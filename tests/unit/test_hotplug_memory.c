#include "tests/unit/harness.h"

#include "vmm/guest_memory.h"
#include "vmm/hotplug_memory.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Memory that comes and goes: 512 MiB from 4 GiB in blocks of 2 MiB and slots of 128, with memslots that are noted. */

enum { SLOTS = 4, BLOCKS_IN_SLOT = 64 };
#define BLOCK (2ull << 20)
#define SLOT (128ull << 20)
#define START 0x100000000ULL

static const struct memory_hotplug_config config = {
    .present = true, .total_size_mib = 512, .slot_size_mib = 128, .block_size_mib = 2};
static struct hotplug_memory memory;
static bool slot_there[SLOTS];
static unsigned slot_calls;
static unsigned slots_left; /* that the host has to give; UINT32_MAX: enough */

static bool note_memslot(void *owner, uint32_t slot, const struct guest_region *region)
{
    uint64_t index = (region->gpa - START) / SLOT;

    assert_ptr_equal(owner, &memory);
    assert_true(slot >= 512 && slot - 512 == index && index < SLOTS);
    assert_int_equal(region->gpa, START + index * SLOT);
    assert_ptr_equal(region->hva, memory.hva + index * SLOT);
    slot_calls++;
    if (region->size == 0) {
        slot_there[index] = false;
        return true;
    }
    assert_int_equal(region->size, SLOT);
    assert_false(slot_there[index]);
    if (slots_left == 0)
        return false;
    slots_left--;
    slot_there[index] = true;
    return true;
}

static int setup(void **state)
{
    (void)state;
    memset(slot_there, 0, sizeof(slot_there));
    slot_calls = 0;
    slots_left = UINT32_MAX;
    assert_no_error(hotplug_memory_new(&memory, &config, START, HUGE_PAGES_NONE, false));
    memory.memslot_set = note_memslot;
    memory.owner = &memory;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hotplug_memory_free(&memory);
    return 0;
}

static uint64_t block(uint64_t index)
{
    return START + index * BLOCK;
}

/* The process's own view: write(2) says EFAULT where nothing may be touched. */
static bool can_be_touched(uint64_t gpa)
{
    int pipes[2];

    assert_int_equal(pipe2(pipes, 0), 0);
    bool touched = write(pipes[1], memory.hva + (gpa - START), 1) == 1;
    close(pipes[0]);
    close(pipes[1]);
    return touched;
}

static void test_nothing_is_there_at_first(void **state)
{
    (void)state;
    assert_int_equal((uintptr_t)memory.hva % BLOCK, 0);
    assert_int_equal(memory.plugged_size, 0);
    assert_null(hotplug_memory_at(&memory, START, 1));
    assert_false(can_be_touched(START));
    assert_false(can_be_touched(START + 512 * (1ull << 20) - 1));
    assert_int_equal(hotplug_memory_state(&memory, START, 512ull << 20), HOTPLUG_UNPLUGGED);
}

static void test_plugged_blocks_are_memory_and_no_others(void **state)
{
    (void)state;
    assert_true(hotplug_memory_plug(&memory, block(3), 2 * BLOCK));
    assert_int_equal(memory.plugged_size, 2 * BLOCK);
    assert_ptr_equal(hotplug_memory_at(&memory, block(3), 2 * BLOCK), memory.hva + 3 * BLOCK);
    assert_non_null(hotplug_memory_at(&memory, block(5) - 1, 1));
    assert_null(hotplug_memory_at(&memory, block(5) - 1, 2));
    assert_null(hotplug_memory_at(&memory, block(3) - 1, 2));
    assert_null(hotplug_memory_at(&memory, block(2), 1));
    assert_null(hotplug_memory_at(&memory, START - 1, 2));
    assert_null(hotplug_memory_at(&memory, block(3), UINT64_MAX));
    assert_null(hotplug_memory_at(&memory, UINT64_MAX, 1));
    assert_null(hotplug_memory_at(&memory, START + memory.size, 0));
    assert_true(can_be_touched(block(3)) && can_be_touched(block(5) - 1));
    assert_false(can_be_touched(block(3) - 1) || can_be_touched(block(5)));
    memory.hva[3 * BLOCK] = 1;
}

static void test_states_are_told_apart(void **state)
{
    (void)state;
    assert_true(hotplug_memory_plug(&memory, block(3), 2 * BLOCK));
    assert_int_equal(hotplug_memory_state(&memory, block(3), 2 * BLOCK), HOTPLUG_PLUGGED);
    assert_int_equal(hotplug_memory_state(&memory, block(4), BLOCK), HOTPLUG_PLUGGED);
    assert_int_equal(hotplug_memory_state(&memory, block(2), 2 * BLOCK), HOTPLUG_MIXED);
    assert_int_equal(hotplug_memory_state(&memory, block(4), 2 * BLOCK), HOTPLUG_MIXED);
    assert_int_equal(hotplug_memory_state(&memory, block(5), 2 * BLOCK), HOTPLUG_UNPLUGGED);
}

static void test_only_whole_blocks_are_a_range(void **state)
{
    static const struct {
        uint64_t gpa, length;
    } bad[] = {{START, 0},
               {START, BLOCK - 1},
               {START, BLOCK + 4096},
               {START + 4096, BLOCK},
               {START - BLOCK, BLOCK},
               {START - BLOCK, 2 * BLOCK},
               {START, 513ull << 20},
               {START + (510ull << 20), 2 * BLOCK},
               {START + (512ull << 20), BLOCK},
               {START, UINT64_MAX - BLOCK + 1},
               {UINT64_MAX - BLOCK + 1, BLOCK},
               {0, BLOCK}};

    (void)state;
    for (size_t i = 0; i < array_length(bad); i++)
        assert_false(hotplug_memory_is_range(&memory, bad[i].gpa, bad[i].length));
    assert_true(hotplug_memory_is_range(&memory, START, 512ull << 20));
    assert_true(hotplug_memory_is_range(&memory, START + (510ull << 20), BLOCK));
}

/* A slot is there from its first block to its last. */
static void test_slots_follow_the_blocks(void **state)
{
    (void)state;
    assert_true(hotplug_memory_plug(&memory, block(63), 2 * BLOCK)); /* the last of slot 0, the first of slot 1 */
    assert_true(slot_there[0] && slot_there[1] && !slot_there[2]);
    assert_int_equal(memory.slot_blocks[0], 1);
    assert_int_equal(memory.slot_blocks[1], 1);
    assert_true(hotplug_memory_plug(&memory, block(0), BLOCK));
    assert_int_equal(slot_calls, 2);
    assert_true(hotplug_memory_unplug(&memory, block(63), BLOCK));
    assert_true(slot_there[0]);
    assert_true(hotplug_memory_unplug(&memory, block(0), BLOCK));
    assert_false(slot_there[0]);
    assert_true(slot_there[1]);
    assert_true(hotplug_memory_plug(&memory, block(65), 3 * BLOCKS_IN_SLOT * BLOCK - BLOCK));
    assert_true(hotplug_memory_unplug(&memory, block(64), 3 * BLOCKS_IN_SLOT * BLOCK));
    for (unsigned i = 0; i < SLOTS; i++)
        assert_false(slot_there[i]);
    assert_int_equal(memory.plugged_size, 0);
    assert_int_equal(memory.runs, 0);
}

static void test_unplugged_memory_is_gone_and_comes_back_empty(void **state)
{
    (void)state;
    assert_true(hotplug_memory_plug(&memory, block(0), 4 * BLOCK));
    memset(memory.hva, 0xaa, 4 * BLOCK);
    assert_true(hotplug_memory_unplug(&memory, block(1), 2 * BLOCK));
    assert_false(can_be_touched(block(1)) || can_be_touched(block(3) - 1));
    assert_null(hotplug_memory_at(&memory, block(0), 2 * BLOCK));
    assert_int_equal(memory.hva[BLOCK - 1], 0xaa);
    assert_int_equal(memory.hva[3 * BLOCK], 0xaa);
    assert_int_equal(memory.plugged_size, 2 * BLOCK);
    assert_true(hotplug_memory_plug(&memory, block(1), 2 * BLOCK));
    for (uint64_t i = BLOCK; i < 3 * BLOCK; i++)
        assert_int_equal(memory.hva[i], 0);
}

static void test_slots_that_the_host_refuses_change_nothing(void **state)
{
    (void)state;
    slots_left = 2;
    assert_false(hotplug_memory_plug(&memory, block(10), 3 * BLOCKS_IN_SLOT * BLOCK));
    for (unsigned i = 0; i < SLOTS; i++)
        assert_false(slot_there[i]);
    assert_int_equal(memory.plugged_size, 0);
    assert_int_equal(memory.runs, 0);
    assert_int_equal(hotplug_memory_state(&memory, START, memory.size), HOTPLUG_UNPLUGGED);
    assert_false(can_be_touched(block(10)));

    /* What was there before stays. */
    slots_left = 1;
    assert_true(hotplug_memory_plug(&memory, block(10), BLOCK));
    assert_false(hotplug_memory_plug(&memory, block(11), BLOCKS_IN_SLOT * BLOCK));
    assert_true(slot_there[0]);
    assert_true(can_be_touched(block(10)));
    assert_false(can_be_touched(block(11)));
}

static void test_runs_are_counted(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 100; i += 2)
        assert_true(hotplug_memory_plug(&memory, block(i), BLOCK));
    assert_int_equal(memory.runs, 50);
    assert_true(hotplug_memory_plug(&memory, block(1), BLOCK)); /* two become one */
    assert_int_equal(memory.runs, 49);
    assert_true(hotplug_memory_plug(&memory, block(100 + 1), BLOCK));
    assert_int_equal(memory.runs, 50);
    assert_true(hotplug_memory_plug(&memory, block(100), BLOCK)); /* after another */
    assert_int_equal(memory.runs, 50);
    assert_true(hotplug_memory_unplug(&memory, block(0), BLOCK));
    assert_int_equal(memory.runs, 50);
    assert_true(hotplug_memory_unplug(&memory, block(1), BLOCK)); /* from its front */
    assert_int_equal(memory.runs, 50);
    assert_true(hotplug_memory_plug(&memory, block(255), BLOCK)); /* the very last */
    assert_int_equal(memory.runs, 51);
    assert_true(hotplug_memory_unplug(&memory, block(100), BLOCK)); /* of two, which are then one */
    assert_int_equal(memory.runs, 51);
}

/* A guest must not take all the mappings that a process may have. */
static void test_memory_in_too_many_pieces_is_refused(void **state)
{
    static const struct memory_hotplug_config large = {
        .present = true, .total_size_mib = 65536, .slot_size_mib = 65536, .block_size_mib = 2};
    uint64_t pieces = 0;

    teardown(state);
    slots_left = UINT32_MAX;
    assert_no_error(hotplug_memory_new(&memory, &large, START, HUGE_PAGES_NONE, false));
    memory.memslot_set = NULL;
    memory.slot_blocks[0] = 1; /* it is set */
    while (hotplug_memory_plug(&memory, block(2 * pieces), BLOCK))
        pieces++;
    assert_int_equal(pieces, 8192);
    /* Nor is one run made two; from its end it may be taken. */
    assert_true(memory.runs >= pieces);
    memory.runs--;
    assert_true(hotplug_memory_plug(&memory, block(1), BLOCK));
    memory.runs = 8192;
    assert_false(hotplug_memory_unplug(&memory, block(1), BLOCK));
    assert_int_equal(hotplug_memory_state(&memory, block(0), 3 * BLOCK), HOTPLUG_PLUGGED);
    assert_true(hotplug_memory_unplug(&memory, block(2), BLOCK));
}

static void test_other_addresses_are_looked_up_through_guest_memory(void **state)
{
    struct guest_memory guest = {.hotplug = &memory};
    uint64_t gpa = 0;

    (void)state;
    assert_null(guest_memory_at(&guest, block(1), 1));
    assert_true(hotplug_memory_plug(&memory, block(1), BLOCK));
    assert_ptr_equal(guest_memory_at(&guest, block(1) + 5, 1), memory.hva + BLOCK + 5);
    assert_true(guest_memory_gpa(&guest, memory.hva + BLOCK + 5, &gpa));
    assert_int_equal(gpa, block(1) + 5);
    assert_false(guest_memory_gpa(&guest, memory.hva + memory.size, &gpa));
    /* The balloon may have pages of it. */
    memset(memory.hva + BLOCK, 0xaa, 2 * 4096);
    assert_true(guest_memory_release(&guest, block(1), 4096, GUEST_RELEASE_ALL));
    assert_int_equal(memory.hva[BLOCK], 0);
    assert_int_equal(memory.hva[BLOCK + 4096], 0xaa);
    assert_false(guest_memory_release(&guest, block(1), BLOCK + 4096, GUEST_RELEASE_ALL));
}

static void test_more_than_there_is_address_space_for_is_an_error(void **state)
{
    static const struct memory_hotplug_config huge = {
        .present = true, .total_size_mib = 1ull << 40, .slot_size_mib = 1ull << 39, .block_size_mib = 1ull << 39};
    struct hotplug_memory none;

    (void)state;
    assert_error(hotplug_memory_new(&none, &huge, START, HUGE_PAGES_NONE, false), ERROR_HOST,
                 "total_size_mib: cannot reserve");
    assert_null(none.hva);
    hotplug_memory_free(&none);
}

/* As another process maps it: what that writes where nothing is plugged is not there when something is. */
static void test_shared_memory_is_seen_whole_and_comes_back_empty(void **state)
{
    struct stat status;

    teardown(state);
    assert_no_error(hotplug_memory_new(&memory, &config, START, HUGE_PAGES_NONE, true));
    memory.memslot_set = note_memslot;
    memory.owner = &memory;
    uint8_t *seen = mmap(NULL, memory.size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.shared_fd, 0);
    assert_ptr_not_equal(seen, MAP_FAILED);
    assert_false(can_be_touched(START));

    seen[3 * BLOCK] = seen[4 * BLOCK] = 0xbb;
    assert_true(hotplug_memory_plug(&memory, block(3), BLOCK));
    assert_int_equal(memory.hva[3 * BLOCK], 0);
    assert_int_equal(seen[4 * BLOCK], 0xbb);
    memory.hva[4 * BLOCK - 1] = 0xaa;
    assert_int_equal(seen[4 * BLOCK - 1], 0xaa);
    assert_true(hotplug_memory_unplug(&memory, block(3), BLOCK));
    assert_false(can_be_touched(block(3)));
    assert_int_equal(seen[4 * BLOCK - 1], 0);
    assert_true(hotplug_memory_plug(&memory, block(3), 2 * BLOCK));
    memset(memory.hva + 3 * BLOCK, 0xaa, 2 * BLOCK);
    assert_true(hotplug_memory_unplug(&memory, block(3), 2 * BLOCK));
    assert_int_equal(fstat(memory.shared_fd, &status), 0);
    assert_in_range(status.st_blocks, 0, 8);

    /* A block that gets no slot is not left mapped either. */
    slots_left = 0;
    assert_false(hotplug_memory_plug(&memory, block(0), BLOCK));
    assert_false(can_be_touched(START));
    munmap(seen, memory.size);
}

/* Whether nothing else that this process maps can come to lie there. */
static bool is_taken(uint8_t *hva, uint64_t length)
{
    void *mapped =
        mmap(hva, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (mapped != MAP_FAILED)
        munmap(mapped, length);
    return mapped == MAP_FAILED;
}

/* More huge pages than any host has: the kernel has unmapped what was there when it finds that out. */
static void test_blocks_that_the_host_cannot_give_leave_no_gap(void **state)
{
    const uint64_t size = 64ull << 30;
    const struct memory_hotplug_config huge = {
        .present = true, .total_size_mib = size >> 20, .slot_size_mib = size >> 20, .block_size_mib = size >> 20};

    for (int shared = 0; shared < 2; shared++) {
        teardown(state);
        assert_no_error(hotplug_memory_new(&memory, &huge, START, HUGE_PAGES_2M, shared == 1));
        memory.memslot_set = note_memslot;
        memory.owner = &memory;
        assert_false(hotplug_memory_plug(&memory, START, size));
        assert_int_equal(slot_calls, 0);
        assert_true(is_taken(memory.hva, size));
        assert_false(can_be_touched(START));
    }
}

#define hotplug_test(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

TEST_MAIN(hotplug_test(test_nothing_is_there_at_first), hotplug_test(test_plugged_blocks_are_memory_and_no_others),
          hotplug_test(test_states_are_told_apart), hotplug_test(test_only_whole_blocks_are_a_range),
          hotplug_test(test_slots_follow_the_blocks), hotplug_test(test_unplugged_memory_is_gone_and_comes_back_empty),
          hotplug_test(test_slots_that_the_host_refuses_change_nothing), hotplug_test(test_runs_are_counted),
          hotplug_test(test_memory_in_too_many_pieces_is_refused),
          hotplug_test(test_other_addresses_are_looked_up_through_guest_memory),
          hotplug_test(test_shared_memory_is_seen_whole_and_comes_back_empty),
          hotplug_test(test_blocks_that_the_host_cannot_give_leave_no_gap),
          hotplug_test(test_more_than_there_is_address_space_for_is_an_error))

#include "tests/guest/lib/guest.h"

enum {
    SERIAL_DATA = 0x3f8,
    SERIAL_LINE_STATUS = 0x3fd,
    SERIAL_DATA_READY = 0x01,
    I8042_COMMAND = 0x64,
    I8042_RESET = 0xfe,
    ZERO_PAGE_EXT_CMDLINE = 0x0c8,
    ZERO_PAGE_E820_COUNT = 0x1e8,
    ZERO_PAGE_CMDLINE = 0x228,
    ZERO_PAGE_E820 = 0x2d0,
    PAGE_TABLES_MORE = 16, /* GiBs above 4 GiB that can be reached */
};

static const uint64_t boot_timer_gpa = 0xc0000000;
static const uint8_t *boot_params;
static uint64_t page_tables_more[PAGE_TABLES_MORE][512] __attribute__((aligned(4096)));
static unsigned page_tables_used;
extern uint64_t page_table_3[512];

void guest_start(const uint8_t *parameters);

void guest_start(const uint8_t *parameters)
{
    boot_params = parameters;
    guest_main();
    guest_reset();
}

void serial_put(char byte)
{
    port_write8(SERIAL_DATA, (uint8_t)byte);
}

void serial_puts(const char *text)
{
    while (*text != '\0')
        serial_put(*text++);
}

void serial_decimal(uint64_t value)
{
    char digits[21];
    unsigned count = 0;

    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0)
        serial_put(digits[--count]);
}

void serial_hex(uint64_t value)
{
    char digits[17];
    unsigned count = 0;

    do {
        digits[count++] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value != 0);
    while (count > 0)
        serial_put(digits[--count]);
}

void serial_result(const char *name, uint64_t value)
{
    serial_puts(name);
    serial_put(' ');
    serial_hex(value);
    serial_put('\n');
}

bool serial_ready(void)
{
    return (port_read8(SERIAL_LINE_STATUS) & SERIAL_DATA_READY) != 0;
}

char serial_get(void)
{
    while (!serial_ready())
        ;
    return (char)port_read8(SERIAL_DATA);
}

void guest_reset(void)
{
    port_write8(I8042_COMMAND, I8042_RESET);
    guest_halt();
}

void guest_triple_fault(void)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) no_idt = {0, 0};

    __asm__ volatile("lidt %0\n\tud2" : : "m"(no_idt));
    guest_halt();
}

void guest_halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt" : : : "memory");
}

void guest_fail(const char *what)
{
    serial_puts("FAIL ");
    serial_puts(what);
    serial_put('\n');
    guest_reset();
}

void guest_expect(bool condition, const char *what)
{
    if (!condition)
        guest_fail(what);
}

void boot_timer_write(void)
{
    __asm__ volatile("movb $123, (%0)" : : "r"(boot_timer_gpa) : "memory");
}

const uint8_t *zero_page(void)
{
    return boot_params;
}

static uint32_t zero_page_u32(unsigned offset)
{
    uint32_t value;

    memcpy(&value, boot_params + offset, sizeof(value));
    return value;
}

const char *cmdline(void)
{
    uint64_t high = zero_page_u32(ZERO_PAGE_EXT_CMDLINE);

    return (const char *)(high << 32 | zero_page_u32(ZERO_PAGE_CMDLINE));
}

/* The text after `name` where it starts a word, or NULL. */
static const char *cmdline_find(const char *name)
{
    const char *text = cmdline();
    size_t length = text_length(name);

    for (bool word_start = true; *text != '\0'; text++) {
        if (word_start && *text == *name && memcmp(text, name, length) == 0)
            return text + length;
        word_start = *text == ' ';
    }
    return NULL;
}

bool cmdline_value(const char *name, char *value, size_t size)
{
    const char *text = cmdline_find(name);
    size_t length = 0;

    if (text == NULL || *text != '=')
        return false;
    for (text++; *text != '\0' && *text != ' ' && length + 1 < size; text++)
        value[length++] = *text;
    value[length] = '\0';
    return true;
}

uint64_t cmdline_number(const char *name, uint64_t otherwise)
{
    char value[24];

    return cmdline_value(name, value, sizeof(value)) ? text_number(value) : otherwise;
}

bool cmdline_has(const char *word)
{
    const char *text = cmdline_find(word);

    return text != NULL && (*text == '\0' || *text == ' ');
}

unsigned e820_count(void)
{
    return boot_params[ZERO_PAGE_E820_COUNT];
}

struct e820_entry e820_at(unsigned index)
{
    struct e820_entry entry;

    memcpy(&entry, boot_params + ZERO_PAGE_E820 + index * sizeof(entry), sizeof(entry));
    return entry;
}

bool guest_map(uint64_t gpa)
{
    uint64_t gib = gpa >> 30;
    uint64_t *table;

    if (gib < 4)
        return true;
    if (gib >= 512)
        return false;
    if (page_table_3[gib] == 0) {
        if (page_tables_used == PAGE_TABLES_MORE)
            return false;
        page_table_3[gib] = (uint64_t)page_tables_more[page_tables_used++] | 0x3;
    }
    table = (uint64_t *)(page_table_3[gib] & ~0xfffull);
    table[(gpa >> 21) & 511] = (gpa & ~0x1fffffull) | 0x83;
    compiler_barrier();
    return true;
}

bool text_equal(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b)
        a++, b++;
    return *a == *b;
}

size_t text_length(const char *text)
{
    size_t length = 0;

    while (text[length] != '\0')
        length++;
    return length;
}

uint64_t text_number(const char *text)
{
    uint64_t value = 0;

    while (*text >= '0' && *text <= '9')
        value = value * 10 + (uint64_t)(*text++ - '0');
    return value;
}

/* Eight bytes at a time: each repetition is emulated on its own. */
void *memcpy(void *to, const void *from, size_t length)
{
    void *start = to;
    size_t words = length / 8, rest = length % 8;

    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(rest) : : "memory");
    return start;
}

void *memset(void *to, int value, size_t length)
{
    void *start = to;
    uint64_t pattern = (uint8_t)value * 0x0101010101010101ull;
    size_t words = length / 8, rest = length % 8;

    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(pattern) : "memory");
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(rest) : "a"(pattern) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t length)
{
    const uint8_t *left = a, *right = b;

    for (size_t i = 0; i < length; i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

#include "vmm/mmds/value.h"

#include <stdlib.h>
#include <string.h>

static bool text_set(struct mmds_text *text, const char *bytes, size_t length)
{
    char *copy = malloc(length > 0 ? length : 1);

    if (copy == NULL)
        return false;
    memcpy(copy, bytes, length);
    free(text->bytes);
    *text = (struct mmds_text){copy, length};
    return true;
}

struct mmds_value *mmds_value_new(enum mmds_type type, const char *text, size_t length)
{
    struct mmds_value *value = calloc(1, sizeof(*value));

    if (value == NULL)
        return NULL;
    value->type = type;
    if (text != NULL && !text_set(&value->text, text, length)) {
        free(value);
        return NULL;
    }
    return value;
}

void mmds_value_free(struct mmds_value *value)
{
    if (value == NULL)
        return;
    for (size_t i = 0; i < value->count; i++)
        mmds_value_free(value->members[i]);
    free(value->members);
    free(value->name.bytes);
    free(value->text.bytes);
    free(value);
}

/* Makes room at `place`, which the caller fills. */
static bool members_open(struct mmds_value *value, size_t place)
{
    if (value->count == value->room) {
        size_t room = value->room == 0 ? 4 : value->room * 2;
        struct mmds_value **members = realloc(value->members, room * sizeof(*members));

        if (members == NULL)
            return false;
        value->members = members;
        value->room = room;
    }
    memmove(value->members + place + 1, value->members + place, (value->count - place) * sizeof(*value->members));
    value->count++;
    return true;
}

static int name_compare(const struct mmds_text *one, const char *name, size_t length)
{
    int order = memcmp(one->bytes, name, one->length < length ? one->length : length);

    return order != 0 ? order : (one->length > length) - (one->length < length);
}

/* Where the member is, or would have to stand; `found` says which. */
static size_t member_place(const struct mmds_value *object, const char *name, size_t length, bool *found)
{
    size_t low = 0, high = object->count;

    *found = false;
    while (low < high && !*found) {
        size_t middle = low + (high - low) / 2;
        int order = name_compare(&object->members[middle]->name, name, length);

        if (order == 0)
            *found = true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return *found ? high : low;
}

bool mmds_object_set(struct mmds_value *object, const char *name, size_t length, struct mmds_value *member)
{
    bool found;
    size_t place = member_place(object, name, length, &found);

    if (!text_set(&member->name, name, length) || (!found && !members_open(object, place))) {
        mmds_value_free(member);
        return false;
    }
    if (found)
        mmds_value_free(object->members[place]);
    object->members[place] = member;
    return true;
}

bool mmds_array_add(struct mmds_value *array, struct mmds_value *item)
{
    if (!members_open(array, array->count)) {
        mmds_value_free(item);
        return false;
    }
    array->members[array->count - 1] = item;
    return true;
}

struct mmds_value *mmds_object_get(const struct mmds_value *object, const char *name, size_t length)
{
    bool found;
    size_t place = member_place(object, name, length, &found);

    return found ? object->members[place] : NULL;
}

struct mmds_value *mmds_value_clone(const struct mmds_value *value)
{
    struct mmds_value *clone = mmds_value_new(value->type, value->text.bytes, value->text.length);

    for (size_t i = 0; clone != NULL && i < value->count; i++) {
        const struct mmds_text *name = &value->members[i]->name;
        struct mmds_value *member = mmds_value_clone(value->members[i]);
        bool taken =
            member != NULL && (value->type == MMDS_OBJECT ? mmds_object_set(clone, name->bytes, name->length, member)
                                                          : mmds_array_add(clone, member));

        if (!taken) {
            mmds_value_free(clone);
            return NULL;
        }
    }
    return clone;
}

static void object_remove(struct mmds_value *object, const struct mmds_text *name)
{
    bool found;
    size_t place = member_place(object, name->bytes, name->length, &found);

    if (!found)
        return;
    mmds_value_free(object->members[place]);
    object->count--;
    memmove(object->members + place, object->members + place + 1, (object->count - place) * sizeof(*object->members));
}

static bool merge_member(struct mmds_value *object, const struct mmds_value *patch)
{
    const struct mmds_text *name = &patch->name;
    struct mmds_value *target = mmds_object_get(object, name->bytes, name->length);

    if (patch->type == MMDS_NULL) {
        object_remove(object, name);
        return true;
    }
    if (patch->type != MMDS_OBJECT) {
        struct mmds_value *clone = mmds_value_clone(patch);

        return clone != NULL && mmds_object_set(object, name->bytes, name->length, clone);
    }
    if (target == NULL || target->type != MMDS_OBJECT) {
        target = mmds_value_new(MMDS_OBJECT, NULL, 0);
        if (target == NULL || !mmds_object_set(object, name->bytes, name->length, target))
            return false;
    }
    return mmds_value_merge(target, patch);
}

bool mmds_value_merge(struct mmds_value *object, const struct mmds_value *patch)
{
    for (size_t i = 0; i < patch->count; i++)
        if (!merge_member(object, patch->members[i]))
            return false;
    return true;
}

/* Counts what would be written when there is nowhere to write to. */
struct out {
    char *to;
    size_t length;
};

static void put(struct out *out, const char *bytes, size_t length)
{
    if (out->to != NULL && length > 0)
        memcpy(out->to + out->length, bytes, length);
    out->length += length;
}

static void put_escaped(struct out *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char plain[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *at = c == '\0' ? NULL : strchr(plain, c);

    if (at != NULL)
        put(out, (char[]){'\\', letters[at - plain]}, 2);
    else
        put(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

static void put_string(struct out *out, const struct mmds_text *text)
{
    put(out, "\"", 1);
    for (size_t i = 0; i < text->length; i++) {
        unsigned char c = (unsigned char)text->bytes[i];

        if (c < 0x20 || c == '"' || c == '\\')
            put_escaped(out, c);
        else
            put(out, text->bytes + i, 1);
    }
    put(out, "\"", 1);
}

static void put_value(struct out *out, const struct mmds_value *value);

static void put_members(struct out *out, const struct mmds_value *value, const char brackets[2])
{
    put(out, brackets, 1);
    for (size_t i = 0; i < value->count; i++) {
        if (i > 0)
            put(out, ",", 1);
        if (value->type == MMDS_OBJECT) {
            put_string(out, &value->members[i]->name);
            put(out, ":", 1);
        }
        put_value(out, value->members[i]);
    }
    put(out, brackets + 1, 1);
}

static void put_value(struct out *out, const struct mmds_value *value)
{
    switch (value->type) {
    case MMDS_NULL:
        put(out, "null", 4);
        break;
    case MMDS_FALSE:
        put(out, "false", 5);
        break;
    case MMDS_TRUE:
        put(out, "true", 4);
        break;
    case MMDS_NUMBER:
        put(out, value->text.bytes, value->text.length);
        break;
    case MMDS_STRING:
        put_string(out, &value->text);
        break;
    case MMDS_ARRAY:
        put_members(out, value, "[]");
        break;
    case MMDS_OBJECT:
        put_members(out, value, "{}");
        break;
    }
}

size_t mmds_value_json(const struct mmds_value *value, char *to)
{
    struct out out = {.to = to};

    put_value(&out, value);
    return out.length;
}

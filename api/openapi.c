#include "api/openapi.h"

#include "api/routes.h"
#include "vmm/base/cleanup.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

enum { SCHEMAS_MAX = 64 };

/* The schemas to describe, in the order met; `partial` ones have no required fields. */
struct collection {
    struct {
        const struct schema *schema;
        bool partial;
    } items[SCHEMAS_MAX];
    size_t count;
};

static const char *const method_keys[] = {[API_GET] = "get", [API_PUT] = "put", [API_PATCH] = "patch"};

static void collect(struct collection *collection, const struct schema *schema, bool partial)
{
    for (size_t i = 0; i < collection->count; i++)
        if (collection->items[i].schema == schema && collection->items[i].partial == partial)
            return;
    if (collection->count == SCHEMAS_MAX)
        return;
    collection->items[collection->count].schema = schema;
    collection->items[collection->count++].partial = partial;
    for (size_t i = 0; i < schema->field_count; i++)
        if (field_object(&schema->fields[i]) != NULL)
            collect(collection, field_object(&schema->fields[i]), false);
}

/* Always quoted, so that no text of ours is read as anything but a string. */
static void write_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void write_names(FILE *out, const char *const *names)
{
    fputs("[", out);
    for (size_t i = 0; names[i] != NULL; i++) {
        fputs(i == 0 ? "" : ", ", out);
        write_text(out, names[i]);
    }
    fputs("]\n", out);
}

/* What a field is called in an object, or may be as an item; `indent` spaces before each line. */
static void write_reference(FILE *out, int indent, const struct schema *schema)
{
    fprintf(out, "%*s$ref: \"#/components/schemas/%s\"\n", indent, "", schema->name);
}

static bool is_nullable(const struct field *field)
{
    return field->flags & (FIELD_NULLABLE | FIELD_ZERO_NULL | FIELD_SHOW_NULL);
}

static void write_integer(FILE *out, const struct field *field, bool partial)
{
    /* OpenAPI knows signed formats only. */
    bool wide = field->size == sizeof(uint64_t) || field->maximum > INT32_MAX;

    fprintf(out, "          type: integer\n          format: %s\n", wide ? "int64" : "int32");
    fprintf(out, "          minimum: %u\n          maximum: %" PRIu64 "\n", field->minimum, field->maximum);
    if (field->initial != 0 && !(field->flags & FIELD_REQUIRED) && !partial)
        fprintf(out, "          default: %u\n", field->initial);
}

static void write_string(FILE *out, const struct field *field)
{
    fputs("          type: string\n", out);
    if (field->maximum > 0) /* those that only replies have are not limited */
        fprintf(out, "          minLength: %u\n          maxLength: %" PRIu64 "\n", field->minimum, field->maximum);
    if (field->format != NULL) {
        fputs("          pattern: ", out);
        write_text(out, field->format->pattern);
        fputs("\n", out);
    }
}

static void write_name(FILE *out, const struct field *field, bool partial)
{
    fputs("          type: string\n          enum: ", out);
    write_names(out, field->names);
    if (field->type == FIELD_ENUM && !(field->flags & FIELD_REQUIRED) && !partial)
        fprintf(out, "          default: \"%s\"\n", field->names[field->initial]);
}

static void write_array(FILE *out, const struct field *field)
{
    fprintf(out, "          type: array\n          minItems: %u\n          maxItems: %" PRIu64 "\n", field->minimum,
            field->maximum);
    if (field->object == NULL) {
        fputs("          items: {}\n", out);
        return;
    }
    fputs("          items:\n", out);
    write_reference(out, 12, field->object);
}

/* Without `partial`, what is not given gets its default. */
static void write_field(FILE *out, const struct field *field, bool partial)
{
    fprintf(out, "        %s:\n          description: ", field->name);
    write_text(out, field->description);
    fputs("\n", out);
    if (field->flags & FIELD_DEPRECATED)
        fputs("          deprecated: true\n", out);
    switch (field->type) {
    case FIELD_BOOL:
        fputs("          type: boolean\n", out);
        if (!partial && !(field->flags & FIELD_REQUIRED))
            fprintf(out, "          default: %s\n", field->initial != 0 ? "true" : "false");
        break;
    case FIELD_INTEGER:
        write_integer(out, field, partial);
        break;
    case FIELD_ENUM:
    case FIELD_WORD:
        write_name(out, field, partial);
        break;
    case FIELD_STRING:
        write_string(out, field);
        break;
    case FIELD_STRING_MAP:
        fprintf(out, "          type: object\n          maxProperties: %" PRIu64 "\n", field->maximum);
        fputs("          additionalProperties:\n            type: string\n", out);
        break;
    case FIELD_STRING_LIST:
        fprintf(out, "          type: array\n          minItems: %u\n          maxItems: %" PRIu64 "\n", field->minimum,
                field->maximum);
        fprintf(out,
                "          items:\n            type: string\n            minLength: 1\n            maxLength: %d\n",
                ID_LENGTH_MAX);
        break;
    case FIELD_OBJECT:
        fputs("          allOf:\n            -", out);
        write_reference(out, 1, field->object);
        break;
    case FIELD_ARRAY:
    case FIELD_HEAP_ARRAY:
        write_array(out, field);
        break;
    case FIELD_UNSUPPORTED:
        if (field->flags & FIELD_LIST)
            write_array(out, field);
        else
            fputs("          type: object\n          enum: [null]\n", out);
        break;
    }
    if (partial || is_nullable(field) || (field->type == FIELD_UNSUPPORTED && !(field->flags & FIELD_LIST)))
        fputs("          nullable: true\n", out);
}

static void write_required(FILE *out, const struct schema *schema)
{
    const char *separator = "      required: [";

    for (size_t i = 0; i < schema->field_count; i++) {
        if (schema->fields[i].flags & FIELD_REQUIRED) {
            fprintf(out, "%s%s", separator, schema->fields[i].name);
            separator = ", ";
        }
    }
    if (separator[0] == ',')
        fputs("]\n", out);
}

static void write_schema(FILE *out, const struct schema *schema, bool partial)
{
    fprintf(out, "    %s%s:\n      description: ", schema->name, partial ? "Update" : "");
    write_text(out, schema->description);
    fprintf(out, "\n      type: object\n      additionalProperties: %s\n", schema->open ? "true" : "false");
    if (schema->open)
        return;
    if (partial)
        fputs("      minProperties: 1\n", out);
    else
        write_required(out, schema);
    fputs("      properties:\n", out);
    for (size_t i = 0; i < schema->field_count; i++)
        write_field(out, &schema->fields[i], partial);
}

static void write_content(FILE *out, int indent, const struct schema *schema, bool partial)
{
    fprintf(out, "%*scontent:\n%*sapplication/json:\n%*sschema:\n", indent, "", indent + 2, "", indent + 4, "");
    fprintf(out, "%*s$ref: \"#/components/schemas/%s%s\"\n", indent + 6, "", schema->name, partial ? "Update" : "");
}

/* "put_drives_drive_id"; the root is the instance itself. */
static void write_operation_id(FILE *out, const struct route *route)
{
    bool separate = true;

    fprintf(out, "      operationId: %s", method_keys[route->method]);
    if (strcmp(route->path, "/") == 0)
        fputs("_instance", out);
    for (const char *c = route->path; *c != '\0'; c++) {
        if (isalnum((unsigned char)*c) || *c == '_')
            fprintf(out, "%s%c", separate ? "_" : "", *c);
        separate = !isalnum((unsigned char)*c) && *c != '_';
    }
    fputs("\n", out);
}

static const char *states_text(unsigned states)
{
    switch (states) {
    case WHEN_NOT_STARTED:
        return "Only before the guest is started.";
    case WHEN_STARTED:
        return "Only after the guest was started.";
    default:
        return "At any time.";
    }
}

static void write_parameter(FILE *out, const struct route *route)
{
    const char *brace = strchr(route->path, '{');

    if (brace == NULL)
        return;
    fprintf(out, "      parameters:\n        - name: %.*s\n", (int)strcspn(brace + 1, "}"), brace + 1);
    fputs("          in: path\n          required: true\n"
          "          description: \"The same as in the body.\"\n"
          "          schema:\n            type: string\n",
          out);
}

static void write_route(FILE *out, const struct route *route)
{
    fprintf(out, "    %s:\n      summary: ", method_keys[route->method]);
    write_text(out, route->summary);
    fprintf(out, "\n      description: \"%s\"\n", states_text(route->states));
    write_operation_id(out, route);
    write_parameter(out, route);
    if (route->body != NULL) {
        fprintf(out, "      requestBody:\n        required: %s\n", route->body_optional ? "false" : "true");
        write_content(out, 8, route->body, route->current != 0);
    }
    fputs("      responses:\n", out);
    if (route->reply != NULL) {
        fputs("        \"200\":\n          description: \"As asked.\"\n", out);
        write_content(out, 10, route->reply, false);
    } else {
        fputs("        \"204\":\n          description: \"Done.\"\n", out);
    }
    fputs("        \"400\":\n          $ref: \"#/components/responses/Refused\"\n"
          "        default:\n          $ref: \"#/components/responses/Refused\"\n",
          out);
}

static void write_paths(FILE *out)
{
    fputs("paths:\n", out);
    for (size_t i = 0; i < route_count; i++) { /* the routes of a path stand together */
        if (i == 0 || strcmp(routes[i].path, routes[i - 1].path) != 0)
            fprintf(out, "  %s:\n", routes[i].path);
        write_route(out, &routes[i]);
    }
}

static void write_components(FILE *out)
{
    struct collection collection = {0};

    for (size_t i = 0; i < route_count; i++) {
        if (routes[i].body != NULL)
            collect(&collection, routes[i].body, routes[i].current != 0);
        if (routes[i].reply != NULL)
            collect(&collection, routes[i].reply, false);
    }
    fputs("components:\n"
          "  responses:\n"
          "    Refused:\n"
          "      description: \"The request was refused and nothing has changed.\"\n"
          "      content:\n"
          "        application/json:\n"
          "          schema:\n"
          "            $ref: \"#/components/schemas/Error\"\n"
          "  schemas:\n"
          "    Error:\n"
          "      description: \"Why a request was refused. error is there instead when HTTP itself was used wrongly; "
          "the connection then ends.\"\n"
          "      type: object\n"
          "      additionalProperties: false\n"
          "      properties:\n"
          "        fault_message:\n"
          "          type: string\n"
          "        error:\n"
          "          type: string\n",
          out);
    for (size_t i = 0; i < collection.count; i++)
        write_schema(out, collection.items[i].schema, collection.items[i].partial);
}

void api_openapi_write(FILE *out)
{
    fputs("# Made by `make openapi` from api/routes.c and api/schema_objects.c: change those.\n"
          "openapi: 3.0.3\n"
          "info:\n"
          "  title: Mayfly API\n"
          "  version: " API_COMPATIBLE_VERSION "\n"
          "  description: \"HTTP over a Unix socket. Whatever is refused outside /mayfly is answered with 400.\"\n"
          "  license:\n"
          "    name: Apache 2.0\n"
          "    url: https://www.apache.org/licenses/LICENSE-2.0\n"
          "servers:\n"
          "  - url: http://localhost\n",
          out);
    write_paths(out);
    write_components(out);
}

/* How findings are told. */
#include <inttypes.h>
#include <string.h>

#include "api/cli/doctor.h"
#include "api/client/body.h"

enum {
    VERDICT_WIDTH = 8,
    NAME_WIDTH = 17,
    INDENT = VERDICT_WIDTH + 1 + NAME_WIDTH + 1,
    TEXT_WIDTH_MIN = 30, /* on a narrower terminal, the terminal wraps */
};

static const struct {
    const char *name, *colour;
} verdicts[VERDICT_COUNT] = {
    [VERDICT_OK] = {"ok", "\033[32m"},
    [VERDICT_NOTE] = {"note", "\033[33m"},
    [VERDICT_PROBLEM] = {"problem", "\033[31m"},
};

/* The text, whose first line begins at column INDENT, wrapped between words. */
static void print_wrapped(FILE *to, const char *text, unsigned columns)
{
    size_t width = columns >= INDENT + TEXT_WIDTH_MIN ? columns - INDENT : SIZE_MAX;

    while (strlen(text) > width) {
        size_t end = width;

        while (end > 0 && text[end] != ' ')
            end--;
        if (end == 0)
            break;
        fprintf(to, "%.*s\n%*s", (int)end, text, INDENT, "");
        text += end + 1;
    }
    fprintf(to, "%s\n", text);
}

void doctor_print(FILE *to, const struct examination *examination, bool verbose, unsigned columns)
{
    const struct finding *finding = &examination->finding;
    enum verdict verdict = finding->verdict;
    bool colours = columns > 0;

    fprintf(to, "%s%-*s%s %-*s ", colours ? verdicts[verdict].colour : "", VERDICT_WIDTH, verdicts[verdict].name,
            colours ? "\033[0m" : "", NAME_WIDTH, examination->check->name);
    print_wrapped(to, finding->found, columns);
    if (verdict != VERDICT_OK || verbose) {
        fprintf(to, "%*s", INDENT, "why:  ");
        print_wrapped(to, examination->check->why, columns);
    }
    /* Not wrapped, so that it can be copied. */
    if (finding->mend[0] != '\0')
        fprintf(to, "%*s%s%s%s\n", INDENT, "mend: ", colours ? "\033[1m" : "", finding->mend, colours ? "\033[0m" : "");
    fflush(to);
}

void doctor_print_total(FILE *to, const size_t counts[VERDICT_COUNT])
{
    fprintf(to, "%zu ok, %zu note%s, %zu problem%s\n", counts[VERDICT_OK], counts[VERDICT_NOTE],
            counts[VERDICT_NOTE] == 1 ? "" : "s", counts[VERDICT_PROBLEM], counts[VERDICT_PROBLEM] == 1 ? "" : "s");
}

bool doctor_print_json(FILE *to, const struct examination *examinations, size_t count,
                       const size_t counts[VERDICT_COUNT])
{
    struct body *body = body_new();
    const char *text;
    size_t length;

    body_open_array(body, "checks");
    for (size_t i = 0; i < count; i++) {
        const struct finding *finding = &examinations[i].finding;

        body_open_object(body, NULL);
        body_string(body, "name", examinations[i].check->name);
        body_string(body, "verdict", verdicts[finding->verdict].name);
        body_string(body, "found", finding->found);
        body_string(body, "why", examinations[i].check->why);
        body_string(body, "mend", finding->mend[0] != '\0' ? finding->mend : NULL);
        body_close_object(body);
    }
    body_close_array(body);
    for (unsigned verdict = 0; verdict < VERDICT_COUNT; verdict++)
        body_integer(body, verdicts[verdict].name, counts[verdict]);
    text = body_text(body, &length);
    if (text != NULL)
        fprintf(to, "%s\n", text);
    body_free(body);
    return text != NULL;
}

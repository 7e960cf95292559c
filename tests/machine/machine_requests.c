/* What a test asks of the VMM's API. */
#include "tests/machine/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static void request(struct vm *vm, const char *method, const char *path, const char *json,
                    struct api_response *response)
{
    struct error *error = api_client_request(vm->api, method, path, json, json == NULL ? 0 : strlen(json), response);
    char message[512];

    if (error == NULL)
        return;
    snprintf(message, sizeof(message), "%s", error->message);
    error_free(error);
    vm_fail(vm, "%s", message);
}

static void succeeds(struct vm *vm, const char *method, const char *path, const char *json, va_list arguments)
{
    struct api_response response;
    char body[4096];

    vsnprintf(body, sizeof(body), json, arguments);
    request(vm, method, path, body, &response);
    if (response.status / 100 != 2)
        vm_fail(vm, "%s %s %s: %u %s", method, path, body, response.status, response.body);
    api_response_free(&response);
}

void vm_put(struct vm *vm, const char *path, const char *json, ...)
{
    va_list arguments;

    va_start(arguments, json);
    succeeds(vm, "PUT", path, json, arguments);
    va_end(arguments);
}

void vm_patch(struct vm *vm, const char *path, const char *json, ...)
{
    va_list arguments;

    va_start(arguments, json);
    succeeds(vm, "PATCH", path, json, arguments);
    va_end(arguments);
}

int vm_dial(struct vm *vm)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, vm->api_path, strlen(vm->api_path) + 1);
    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        vm_fail(vm, "the API takes no more connections: %s", strerror(errno));
    return fd;
}

void vm_action(struct vm *vm, const char *action_type)
{
    vm_put(vm, "/actions", "{\"action_type\":\"%s\"}", action_type);
}

void vm_refuses(struct vm *vm, const char *method, const char *path, const char *json, const char *text)
{
    struct api_response response;
    char *fault;

    request(vm, method, path, json, &response);
    fault = api_response_fault(&response);
    if (response.status != 400 || fault == NULL || strstr(fault, text) == NULL)
        vm_fail(vm, "%s %s %s: %u %s, expected 400 with \"%s\"", method, path, json, response.status, response.body,
                text);
    free(fault);
    api_response_free(&response);
}

char *vm_get(struct vm *vm, const char *path)
{
    struct api_response response;

    request(vm, "GET", path, NULL, &response);
    if (response.status != 200)
        vm_fail(vm, "GET %s: %u %s", path, response.status, response.body);
    return response.body;
}

void vm_boot_source(struct vm *vm, const char *guest, const char *cmdline)
{
    if (cmdline != NULL)
        vm_put(vm, "/boot-source", "{\"kernel_image_path\":\"%s\",\"boot_args\":\"%s\"}", guest_image(guest), cmdline);
    else
        vm_put(vm, "/boot-source", "{\"kernel_image_path\":\"%s\"}", guest_image(guest));
}

void vm_boot(struct vm *vm, const char *guest, const char *cmdline)
{
    vm_boot_source(vm, guest, cmdline);
    vm_action(vm, "InstanceStart");
}

void vm_drive(struct vm *vm, const char *id, const char *path, const char *more)
{
    char url[64];

    snprintf(url, sizeof(url), "/drives/%s", id);
    vm_put(vm, url, "{\"drive_id\":\"%s\",\"path_on_host\":\"%s\",\"is_root_device\":false%s}", id, path, more);
}

#include <stdarg.h>
#include <stdio.h>

#include "api/cli/doctor.h"

void finding_set(struct finding *finding, enum verdict verdict, const char *format, ...)
{
    va_list arguments;

    finding->verdict = verdict;
    va_start(arguments, format);
    vsnprintf(finding->found, sizeof(finding->found), format, arguments);
    va_end(arguments);
}

void finding_mend(struct finding *finding, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(finding->mend, sizeof(finding->mend), format, arguments);
    va_end(arguments);
}

void finding_mend_sysctl(struct finding *finding, const char *key, const char *value)
{
    finding_mend(finding, "echo '%s = %s' | sudo tee -a /etc/sysctl.d/60-mayfly.conf && sudo sysctl -w %s=%s", key,
                 value, key, value);
}

void finding_mend_boot(const struct host *host, struct finding *finding, const char *words)
{
    if (host_has(host, "/etc/debian_version"))
        finding_mend(finding,
                     "sudo mkdir -p /etc/default/grub.d && echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX %s\"' | sudo "
                     "tee -a /etc/default/grub.d/mayfly.cfg && sudo update-grub && sudo reboot",
                     words);
    else
        finding_mend(finding, "sudo grubby --update-kernel=ALL --args='%s' && sudo reboot", words);
}

void finding_mend_device(struct finding *finding, const char *name, const char *then)
{
    finding_mend(finding,
                 "getent group kvm >/dev/null || sudo groupadd --system kvm; echo 'KERNEL==\"%s\", GROUP=\"kvm\", "
                 "MODE=\"0660\"' | sudo tee /etc/udev/rules.d/65-%s.rules && sudo chgrp kvm /dev/%s && sudo chmod 0660 "
                 "/dev/%s%s",
                 name, name, name, name, then);
}

/* scripts/kvm-linux-probe: says in one line whether this machine's KVM can run Linux; the exit code is the answer. */
#include <stdio.h>

#include "api/cli/kvm_probe.h"

int main(void)
{
    struct kvm_probe probe;
    enum kvm_answer answer = kvm_probe(&probe);

    puts(probe.text);
    return (int)answer;
}

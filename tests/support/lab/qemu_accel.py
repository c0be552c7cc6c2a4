"""How QEMU runs a guest's instructions on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence


def acceleration(kvm: str = "/dev/kvm", modules: str = "/sys/module") -> Sequence[str]:
    """QEMU's options for the accelerator and the processors that it shows.

    KVM counts only where the processor has it. kvm_pvm offers /dev/kvm on machines that are themselves guests without it,
    and emulates what it must: a stock kernel was not past its first messages after four minutes, while TCG boots it in ten
    seconds.
    """
    if os.access(kvm, os.R_OK | os.W_OK) and not os.path.isdir(os.path.join(modules, "kvm_pvm")):
        return ("-accel", "kvm", "-cpu", "host", "-smp", str(min(2, os.cpu_count() or 1)))
    # What a kernel sees it uses, and TCG pays for each instruction of AVX: -cpu max boots half as fast again. Without
    # rdrand the kernel waits for entropy. A second processor costs a fifth more of the machine's time for the same work,
    # since every access to memory that they share must be atomic; the machine's own processors have other guests to run.
    return ("-accel", "tcg", "-cpu", "qemu64,+rdrand", "-smp", "1")

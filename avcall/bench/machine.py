"""What a measurement of speed ran on."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("avcall", "onnxruntime-openvino", "onnxruntime", "onnxruntime-gpu", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class Machine:
    """`load` is how many processes ran or waited for a core over the last minute; None if unknown."""

    cpu: str
    cores: int
    system: str
    load: float | None
    versions: dict[str, str]


def this_machine() -> Machine:
    """The one that this runs on."""
    return Machine(
        cpu=cpu_name(CPUINFO),
        cores=available_cores(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        versions={name: found for name in PACKAGES if (found := _version(name))},
    )


def cpu_name(cpuinfo: Path) -> str:
    """The processor's name from Linux's list, else what Python knows of it."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

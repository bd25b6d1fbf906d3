"""What a machine is called."""

import os
from pathlib import Path

from avcall.bench.machine import available_cores, cpu_name, this_machine


def test_the_processor_is_named_as_linux_names_it(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(
        "processor : 0\nmodel name\t: Fast CPU @ 2 GHz\nprocessor : 1\nmodel name\t: Fast CPU @ 2 GHz\n"
    )
    assert cpu_name(listing) == "Fast CPU @ 2 GHz"
    assert cpu_name(tmp_path / "none")  # whatever Python knows


def test_this_machine_has_cores_and_versions() -> None:
    machine = this_machine()
    assert 1 <= machine.cores == available_cores() <= (os.cpu_count() or 1)
    assert {"avcall", "numpy"} <= set(machine.versions)
    assert machine.load is None or machine.load >= 0

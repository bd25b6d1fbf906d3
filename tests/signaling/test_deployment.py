"""The files that deploy the rendezvous: accepted by compose, with no secret inside, and enough to run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = {"TURN_SECRET": "f00d", "TURN_EXTERNAL_IP": "203.0.113.7"}


def compose_command() -> list[str]:
    """The compose of this machine; skips the test where there is none."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        command = ["docker", "compose"]
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("neither docker-compose nor the compose plugin of docker is installed")


def compose_config(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in REQUIRED} | variables
    command = [*compose_command(), "-f", str(ROOT / "docker-compose.yml"), "config"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_compose_accepts_the_file() -> None:
    done = compose_config(REQUIRED)
    assert done.returncode == 0, done.stderr
    assert "--static-auth-secret=f00d" in done.stdout
    assert done.stdout.count("healthcheck:") == 2


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_compose_asks_for_what_only_the_operator_knows(missing: str) -> None:
    done = compose_config({name: value for name, value in REQUIRED.items() if name != missing})
    assert done.returncode != 0
    assert f"set {missing}" in done.stderr


@pytest.mark.parametrize(
    "network", ["10.0.0.0", "172.16.0.0", "192.168.0.0", "169.254.0.0", "127.0.0.0", "fc00::"]
)
def test_the_relay_denies_private_peers(network: str) -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    assert f"--denied-peer-ip={network}-" in compose
    assert "--denied-peer-ip=::-" not in compose  # coturn would deny every peer


def test_the_image_holds_all_that_the_rendezvous_imports(tmp_path: Path) -> None:
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"]:
            target = tmp_path / words[-1]
            target.mkdir(parents=True, exist_ok=True)
            for source in map(ROOT.joinpath, words[1:-1]):
                if source.is_dir():
                    shutil.copytree(source, target, dirs_exist_ok=True)
                else:
                    shutil.copy(source, target)
    command = [sys.executable, "-m", "signaling", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rendezvous" in done.stdout

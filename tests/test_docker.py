"""The files of docker/, as far as they can be looked at without building the image."""

import asyncio
import os
import re
import sys
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from tests.support.api_server import running_api
from tests.support.processes import free_port

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


async def _check(port: int) -> int | None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "docker" / "healthcheck.py"),
        env={**os.environ, "BARKD_BIND_PORT": str(port)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def test_the_health_check_tells_whether_the_daemon_answers(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        assert await _check(api.port) == 0
    assert await _check(free_port()) == 1


def test_what_the_image_copies_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    ignored = (ROOT / ".dockerignore").read_text().split()
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert name not in ignored


def test_the_image_does_not_run_as_root() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert final.index("USER barkd") < final.index("ENTRYPOINT")
    assert "HEALTHCHECK" in final


def test_the_daemon_uses_the_database_beside_it_and_is_open_to_this_machine_alone() -> None:
    daemon, database = COMPOSE["services"]["barkd"], COMPOSE["services"]["postgres"]
    user, name = database["environment"]["POSTGRES_USER"], database["environment"]["POSTGRES_DB"]
    url = daemon["environment"]["BARKD_DATABASE_URL"]
    assert re.fullmatch(rf"postgresql://{user}:\$\{{POSTGRES_PASSWORD:\?.*\}}@postgres/{name}", url)
    assert all(port.startswith("127.0.0.1:") for port in daemon["ports"])
    assert "ports" not in database
    assert daemon["depends_on"]["postgres"]["condition"] == "service_healthy"

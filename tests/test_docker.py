"""The files of docker/, as far as they can be looked at without building the image."""

import asyncio
import os
import re
import sys
import tomllib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from barkd_py.api.server import DRAIN_SECS
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import generate_mnemonic
from barkd_py.daemon.backup import StaleBackup, make, restore
from barkd_py.datadir import Datadir
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.properties import WalletProperties
from tests.support.api_server import running_api
from tests.support.processes import free_port

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "docker" / "requirements.lock").read_text()
LOCKED = {
    canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^ \n;]+)", LOCK, re.M)
}
IMAGE_EXTRAS = ("postgres", "zmq")
DURATION = re.compile(r"(\d+(us|ms|s|m|h))+")
# Of a service, in the Compose Specification; those that we use or may come to use.
SERVICE_KEYS = frozenset(
    {
        "build",
        "cap_drop",
        "command",
        "depends_on",
        "environment",
        "healthcheck",
        "image",
        "ports",
        "read_only",
    }
    | {"restart", "security_opt", "stop_grace_period", "tmpfs", "user", "volumes"}
)


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


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_the_compose_file_is_one(name: str) -> None:
    service: dict[str, Any] = COMPOSE["services"][name]
    assert set(COMPOSE) == {"name", "services", "volumes"}
    assert set(service) <= SERVICE_KEYS
    assert ("build" in service) != ("image" in service)
    assert all(isinstance(value, str) for value in service["environment"].values())
    for mount in service["volumes"]:
        volume, _, path = mount.partition(":")
        assert volume in COMPOSE["volumes"]
        assert path.startswith("/")
    for other in service.get("depends_on", {}):
        assert "healthcheck" in COMPOSE["services"][other]
    durations = {**service.get("healthcheck", {}), "stop": service.get("stop_grace_period", "1s")}
    for key in ("interval", "timeout", "start_period", "stop"):
        assert DURATION.fullmatch(durations.get(key, "1s")), key
    if "healthcheck" in service:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    if "build" in service:
        context = ROOT / "docker" / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).samefile(ROOT / "docker" / "Dockerfile")


def test_the_data_of_the_daemon_is_in_a_volume() -> None:
    datadir = re.search(r"BARKD_DATADIR=(\S+)", DOCKERFILE)
    assert datadir is not None
    assert f"VOLUME {datadir[1]}\n" in DOCKERFILE
    assert f"barkd:{datadir[1]}" in COMPOSE["services"]["barkd"]["volumes"]


async def test_a_backup_needs_no_place_to_write_but_the_volume(tmp_path: Path) -> None:
    """The root of the container is read-only, and what is beside the data directory is no volume."""
    assert COMPOSE["services"]["barkd"]["read_only"] is True
    seed = generate_mnemonic()
    home = Datadir(tmp_path)
    home.write_mnemonic(seed.words)
    store = await Store.open(str(home.database))
    async with store.transaction() as tx:
        await tx.properties.create(WalletProperties("regtest", WalletKeys(seed).fingerprint))
    await store.close()
    volume = os.open(tmp_path, os.O_RDONLY)  # a path beside which nobody can write, not even root
    try:
        datadir = Datadir(Path(f"/proc/self/fd/{volume}"))
        for number in (1, 2):
            target = datadir.path / f"backup-{number}"
            made = await make(datadir, None, target, now=datetime.now(UTC), with_mnemonic=True)
            assert made.number == number
        home.database.unlink()
        (tmp_path / "mnemonic").unlink()
        with pytest.raises(StaleBackup, match="it is number 1, and number 2 was made"):
            await restore(
                tmp_path / "backup-1",
                datadir,
                None,
                ask_mnemonic=str,
                accept_stale=False,
                now=datetime.now(UTC),
                environment={},
            )
    finally:
        os.close(volume)
    assert list(tmp_path.parent.glob(f"{tmp_path.name}*")) == [tmp_path]


def test_the_grace_of_the_container_is_longer_than_that_of_the_daemon() -> None:
    assert int(COMPOSE["services"]["barkd"]["stop_grace_period"].removesuffix("s")) > DRAIN_SECS + 10


def test_the_image_takes_what_is_locked_and_nothing_else() -> None:
    assert "--require-hashes -r docker/requirements.lock" in DOCKERFILE
    assert "pip install --no-deps --no-build-isolation ." in DOCKERFILE
    assert DOCKERFILE.count("pip install") == 2


def _asked_for() -> list[Requirement]:
    project = PROJECT["project"]
    extras = [project["optional-dependencies"][extra] for extra in IMAGE_EXTRAS]
    return [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]


def test_the_lock_is_of_this_project() -> None:
    """`make lock` brings it up to date."""
    for wanted in [*_asked_for(), *map(Requirement, PROJECT["build-system"]["requires"])]:
        assert wanted.specifier.contains(LOCKED[canonicalize_name(wanted.name)], prereleases=True), wanted


def test_the_lock_is_complete() -> None:
    """Whatever the dependencies ask for is locked too, as far as the locked versions are installed here."""
    left = _asked_for()
    seen: set[tuple[str, frozenset[str]]] = set()
    while left:
        wanted = left.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        assert key[0] in LOCKED, wanted
        if metadata.version(wanted.name) != LOCKED[key[0]]:
            continue
        for text in metadata.requires(wanted.name) or []:
            further = Requirement(text)
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)
            ):
                left.append(further)


def test_the_lock_pins_by_hash_and_names_no_place() -> None:
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.M)[1:]
    assert len(entries) == len(LOCKED)
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert "://" not in LOCK
    assert "--index" not in LOCK
    assert "--find-links" not in LOCK

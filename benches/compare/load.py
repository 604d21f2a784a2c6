"""The load generators, wrk and h2load: how they are called and how their output is read."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import Job
from machine import Cores
from process import Failed

H2_STREAMS = 10
GRACE_SECONDS = 30
UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Load:
    """What the load generator saw; latencies in milliseconds."""

    requests: int
    rps: float
    p50: float
    p99: float
    non_2xx: int
    socket_errors: int


def run_load(
    job: Job, port: int, headers: dict[str, str], seconds: int, connections: int, cores: Cores, scratch: Path
) -> Load:
    """Load `port` with the job for `seconds` and return what came back."""
    options = [option for name, value in headers.items() for option in ("-H", f"{name}: {value}")]
    pinned = ["taskset", "-c", cores.load]
    threads = str(cores.load_count)
    if job.driver == "h2load":
        log = scratch / "h2load.log"
        log.unlink(missing_ok=True)
        clients = str(max(connections // H2_STREAMS, cores.load_count))
        argv = [*pinned, "h2load", "-t", threads, "-c", clients, "-m", str(H2_STREAMS), "-D", str(seconds)]
        return parse_h2load(_output([*argv, f"--log-file={log}", *options, job.url(port)], seconds), log)
    argv = [*pinned, "wrk", "-t", threads, "-c", str(connections), "-d", f"{seconds}s", "--latency"]
    if job.unique:
        script = scratch / "unique.lua"
        # Threads of wrk share nothing, and each run begins anew: the time tells them apart.
        script.write_text(
            "local number = 0\nlocal own = tostring({}):sub(8) .. os.time()\n"
            "function request()\n  number = number + 1\n"
            "  return wrk.format(nil, wrk.path .. '?' .. own .. '-' .. number)\nend\n"
        )
        argv += ["-s", str(script)]
    return parse_wrk(_output([*argv, *options, job.url(port)], seconds))


def _output(argv: Sequence[str], seconds: int) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{argv[3]} did not end") from error
    if done.returncode != 0:
        raise Failed(f"{argv[3]} failed: {(done.stderr or done.stdout).strip()[:300]}")
    return done.stdout


def parse_wrk(output: str) -> Load:
    """Read the report of `wrk --latency`."""
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    return Load(
        requests=int(_first(r"(\d+) requests in", output)),
        rps=float(_first(r"Requests/sec:\s+([\d.]+)", output)),
        p50=_wrk_latency("50", output),
        p99=_wrk_latency("99", output),
        non_2xx=int(_first(r"Non-2xx or 3xx responses: (\d+)", output, "0")),
        socket_errors=sum(map(int, errors.groups())) if errors else 0,
    )


def parse_h2load(output: str, log: Path) -> Load:
    """Read the report of `h2load` and its log, a line of start, status and microseconds per request."""
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    times = [int(row[2]) / 1000 for row in rows if len(row) == 3]
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", output)
    return Load(
        requests=int(_first(r"(\d+) done", output)),
        rps=float(_first(r"finished in [\d.]+\w+, ([\d.]+) req/s", output)),
        p50=cuts[49],
        p99=cuts[98],
        non_2xx=sum(int(row[1]) // 100 != 2 for row in rows if len(row) == 3),
        socket_errors=int(failed[2]) + int(failed[3]) if failed else 0,
    )


def _wrk_latency(percent: str, output: str) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    if found is None:
        raise Failed(f"wrk printed no {percent}% latency")
    return float(found[1]) * UNIT_MS[found[2]]


def _first(pattern: str, output: str, default: str | None = None) -> str:
    found = re.search(pattern, output)
    if found is not None:
        return found[1]
    if default is None:
        raise Failed(f"the load generator printed nothing like '{pattern}': {output.strip()[:200]}")
    return default

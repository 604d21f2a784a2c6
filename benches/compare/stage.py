"""The stage of one run: its directory, cores, ports and credentials, the origin, the peers on it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from credentials import Credentials
from jobs import Job, probe
from machine import Cores, Ports
from peers import Peer
from process import Child, Failed, Supervisor
from template import render

HIGH_RATE = 10_000_000
LOW_RATE = 1
SPARE_CONNECTIONS = 500
# All of 127.0.0.0/8 is this machine.
MORE_ADDRESSES = [f"127.0.1.{number}" for number in range(1, 201)]


@dataclass(frozen=True)
class Running:
    """A peer that is up, has proved that it does `job`, and listens on `port`."""

    peer: Peer
    job: Job
    child: Child
    port: int
    folder: Path


class Stage:
    """Starts the origin and the peers; all of them belong to the supervisor."""

    def __init__(self, directory: Path, cores: Cores, supervisor: Supervisor, nginx: str) -> None:
        self.directory = directory
        self.cores = cores
        self.credentials = Credentials(directory)
        self._supervisor = supervisor
        self._ports = Ports()
        self._folders = 0
        self._shared = self.credentials.template_values()
        # nginx's workers may run as another user: that user may enter here, not list.
        directory.chmod(0o711)
        self._origin = self._start_origin(nginx)

    def start(self, peer: Peer, binary: str, job: Job, connections: int) -> Running:
        """Start `peer` configured for `job` and so many connections, and see that it does the job."""
        folder = self._folder(f"{peer.name}-{job.name}")
        port, admin = self._ports.take(), self._ports.take()
        config = folder / peer.template
        values = self._values(job) | {
            "DIR": folder,
            "PORT": port,
            "ADMIN": admin,
            # nginx starts to drop idle connections when less than a sixteenth of its slots is free.
            "MAXCONN": connections * 9 // 8 + SPARE_CONNECTIONS,
        }
        config.write_text(render(peer.template, job.tags, values))
        child = self._supervisor.start([binary, *peer.arguments(config, port)], self.cores.proxy, folder / "output")
        try:
            child.wait_for_port(port)
            probe(job, port, self.credentials)
        except Failed:
            self._supervisor.stop(child)
            raise
        return Running(peer, job, child, port, folder)

    def stop(self, running: Running) -> None:
        """Stop a peer and drop its logs, which a long run would fill the disk with."""
        self._supervisor.stop(running.child)
        shutil.rmtree(running.folder, ignore_errors=True)

    def _start_origin(self, nginx: str) -> int:
        """Start the origin and return its port."""
        folder = self._folder("origin")
        www = folder / "www"
        www.mkdir(mode=0o755)
        (www / "10k").write_text("x" * 10240)
        (www / "kept").mkdir(mode=0o755)
        (www / "kept" / "100k").write_text("x" * 102400)
        port = self._ports.take()
        more = " ".join(f"listen {address}:{port};" for address in MORE_ADDRESSES)
        values: dict[str, object] = {"MORE_ADDRESSES": more, "DIR": folder, "PORT": port, "MAXCONN": 4096}
        values |= {"BODY_200": "x" * 200, "BODY_1K": "x" * 1024}
        config = folder / "origin.conf"
        config.write_text(render("origin.conf", (), values))
        argv = [nginx, "-p", str(folder), "-e", "stderr", "-c", str(config)]
        self._supervisor.start(argv, self.cores.origin, folder / "output").wait_for_port(port)
        return port

    def _values(self, job: Job) -> dict[str, object]:
        """What the placeholders stand for in every peer's template."""
        rate = LOW_RATE if "low" in job.tags else HIGH_RATE
        values = self._shared | {"ORIGIN": self._origin, "RATE": rate, "BURST": rate}
        values["BACKENDS"] = json.dumps([f"http://127.0.0.1:{self._origin}"])
        if "routes" in job.tags:
            count = 10 if "few" in job.tags else 10_000
            routes = [{"match": {"path": f"/routes/{number}/*"}, "service": "origin"} for number in range(count)]
            values["ROUTES"] = json.dumps(routes)
        if "backends" in job.tags and "few" not in job.tags:
            values["BACKENDS"] = json.dumps([f"http://{address}:{self._origin}" for address in MORE_ADDRESSES])
        if "few" in job.tags:
            values["KEYS_TOLLGATE"] = self.credentials.tollgate_keys([self.credentials.key])
        if "many" in job.tags:
            values["KEYS_TOLLGATE"] = self.credentials.tollgate_keys([self.credentials.key], others=99_999)
        return values

    def _folder(self, name: str) -> Path:
        self._folders += 1
        folder = self.directory / f"{self._folders:03}-{name}"
        folder.mkdir(mode=0o711)
        return folder

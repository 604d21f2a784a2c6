"""The jobs: what is asked of every peer, and how an answer is known to be right."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from credentials import Credentials
from process import Failed

PROBE_SECONDS = 5
LIMITED_PROBES = 20


@dataclass(frozen=True)
class Job:
    """One job; `tags` select the parts of the peers' templates and of the client's headers."""

    name: str
    title: str
    path: str = "/200"
    tags: frozenset[str] = frozenset()
    driver: str = "wrk"
    close: bool = False
    # Only for the load that scripts/release measures, or for --growth: the peers are not set up for it.
    compared: bool = True
    # Every request has a query of its own.
    unique: bool = False
    # The job that costs the same, if cost does not grow: a row of --growth.
    twin: str = ""

    def headers(self, credentials: Credentials) -> dict[str, str]:
        """The request headers the load sends."""
        headers: dict[str, str] = {}
        if "key" in self.tags and "refused" not in self.tags:
            headers["X-API-KEY"] = credentials.key
        if "jwt" in self.tags:
            headers["Authorization"] = f"Bearer {credentials.jwt}"
        if self.close:
            headers["Connection"] = "close"
        return headers

    @property
    def tools(self) -> list[str]:
        """The commands, besides the peers, that the job cannot be run without."""
        drivers = [] if self.driver == "idle" else [self.driver]
        return [*drivers, "openssl"] if "tls" in self.tags else drivers

    def url(self, port: int) -> str:
        """Where the load goes."""
        return f"{'https' if 'tls' in self.tags else 'http'}://127.0.0.1:{port}{self.path}"


def _job(name: str, title: str, tags: str = "", **rest: object) -> Job:
    return Job(name, title, tags=frozenset(tags.split()), **rest)  # type: ignore[arg-type]


JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        _job("plain", "plain proxy, 200 B"),
        _job("plain10k", "plain proxy, 10 KB", path="/10k"),
        _job("key_limit", "API key and per-key limit, all pass", "key limit"),
        _job("jwt", "JWT HS256 and per-subject limit, all pass", "jwt limit"),
        _job("limited", "API key and per-key limit, nearly all 429", "key limit low"),
        _job("refused", "no API key, all 401", "key limit refused", compared=False),
        _job("retried", "every other backend is gone, repeated", "dead", compared=False),
        _job("tls", "TLS 1.3, keep-alive, 200 B", "tls"),
        _job("tls_new", "TLS 1.3, a new connection per request", "tls", close=True),
        _job("h2", "HTTP/2 over TLS 1.3, 10 streams a connection", "tls h2", driver="h2load"),
        _job("hit_1k", "1 KB out of the cache", "cache", path="/kept/1k"),
        _job("hit_100k", "100 KB out of the cache", "cache", path="/kept/100k"),
        _job("stored", "a miss that is stored, 200 B", "cache", path="/kept/200", unique=True),
        _job("idle", "idle keep-alive connections", driver="idle"),
        _job("routes_10", "10 routes", "routes few", path="/routes/5/200", compared=False),
        _job("routes_10k", "10,000 routes", "routes", path="/routes/5/200", compared=False, twin="routes_10"),
        _job("keys_1", "1 API key", "key limit few", compared=False),
        _job("keys_100k", "100,000 API keys", "key limit many", compared=False, twin="keys_1"),
        _job("backends_1", "1 backend", "backends few", compared=False),
        _job("backends_200", "200 backends", "backends", compared=False, twin="backends_1"),
    )
}


def probe(job: Job, port: int, credentials: Credentials) -> None:
    """Fail unless the peer does the job: lets in, turns away and limits as it should."""
    good = job.headers(credentials)
    if "low" in job.tags:
        refused = sum(_get(job, port, good)[0] == 429 for _ in range(LIMITED_PROBES))
        if refused < LIMITED_PROBES * 3 // 4:
            raise Failed(f"refused only {refused} of {LIMITED_PROBES} requests")
        return
    if "refused" in job.tags:
        _expect(job, port, good, 401, "a request without a key")
        return
    _expect(job, port, good, 200, "a good request")
    if "cache" in job.tags:
        _expect(job, port, good, 200, "the same out of the cache")
    if "key" in job.tags:
        _expect(job, port, {}, 401, "no key")
        _expect(job, port, good | {"X-API-KEY": "wrong"}, 401, "a wrong key")
    if "jwt" in job.tags:
        head, _, signature = credentials.jwt.rpartition(".")
        _expect(job, port, {}, 401, "no token")
        _expect(job, port, {"Authorization": f"Bearer {head}.{signature[::-1]}"}, 401, "a bad signature")


def _expect(job: Job, port: int, headers: Mapping[str, str], status: int, what: str) -> None:
    got, length = _get(job, port, headers)
    if got != status:
        raise Failed(f"{what}: status {got}, not {status}")
    wanted = {"200": 200, "1k": 1024, "10k": 10240, "100k": 102400}[job.path.rpartition("/")[2]]
    if status == 200 and length != wanted:
        raise Failed(f"{what}: a body of {length} bytes, not {wanted}")


def _get(job: Job, port: int, headers: Mapping[str, str]) -> tuple[int, int]:
    """Status and body length of one GET on a connection of its own."""
    connection: http.client.HTTPConnection
    if "tls" in job.tags:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PROBE_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", job.path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, len(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"probe: {error!r}") from error
    finally:
        connection.close()

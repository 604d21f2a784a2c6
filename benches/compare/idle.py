"""The idle client: opens many keep-alive connections, sends one request on each, and waits.

A program of its own, so that its memory and CPU are not those of the harness. It prints a line
of JSON once every connection has had its answer, and another when told (by a line on stdin)
to count how many of them the proxy has closed since.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time

IN_FLIGHT = 50
ANSWER_SECONDS = 20


class Connection:
    """A socket and what has been received of its one answer."""

    def __init__(self, port: int, request: bytes) -> None:
        self.received = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.sendall(request)
        self.socket.setblocking(False)

    def read(self) -> bool:
        """Read what is there; True once the whole answer (of status 200) has come."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed before the answer")
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.split(b"\r\n", 1)[0].decode("latin-1"))
        return len(body) >= _content_length(head)

    def is_open(self) -> bool:
        """Whether the proxy still keeps the connection."""
        try:
            return self.socket.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError("an answer without Content-Length")


def open_all(port: int, path: str, count: int) -> list[Connection]:
    """Open `count` connections, a few requests in flight at a time; keep those that were answered."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    answered: list[Connection] = []
    started = 0
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline and (started < count or selector.get_map()):
        while started < count and len(selector.get_map()) < IN_FLIGHT:
            connection = Connection(port, request)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            started += 1
        for key, _ in selector.select(timeout=1):
            if key.data.read():
                selector.unregister(key.data.socket)
                answered.append(key.data)
    return answered


def main() -> None:
    """Arguments: port, path, number of connections."""
    port, path, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = open_all(port, path, count)
    print(json.dumps({"answered": len(connections)}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"open": sum(connection.is_open() for connection in connections)}), flush=True)


if __name__ == "__main__":
    main()

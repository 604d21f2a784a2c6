"""Makes a first corpus for each fuzz target out of the tests' requests and configurations."""

import hashlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def seed(target, data):
    folder = ROOT / "fuzz" / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def unescaped(text):
    return text.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1", "replace")


for name in ["malformed.txt", "valid.txt"]:
    for line in (ROOT / "tests/fixtures/corpus" / name).read_text().splitlines():
        if line.startswith("#") or " | " not in line:
            continue
        data = unescaped(line.rsplit(" | ", 1)[1])
        seed("head", data)
        head, _, body = data.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            seed("chunks", body)
        words = head.split(b"\r\n")[0].split(b" ")
        if len(words) > 1:
            seed("targets", words[1])
            seed("paths", words[1].split(b"?")[0])
        for field in head.split(b"\r\n")[1:]:
            seed("fields", field.partition(b":")[2].strip())

for path in ["/admin%2Fx", "/x/..%2Fadmin/x", "/x/..;/admin/x", "/x/..%5Cadmin", "/admin;a/x", "/%2561dmin", "/%C0%AFadmin"]:
    seed("paths", path.encode())
for line in ["6.6.6.6, 203.0.113.9, 10.0.0.2", 'for="[2001:db8::1]:80";proto=https, for=10.0.0.2', "close, upgrade, x-a"]:
    seed("fields", line.encode())
for line in [b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET /", b"PROXY UNKNOWN\r\n", b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"]:
    seed("proxy_protocol", line)
V2 = bytes([13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10])
seed("proxy_protocol", V2 + bytes([0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187]))
for file in [*(ROOT / "conf").glob("*.yaml"), *(ROOT / "tests/fixtures/leaves").glob("*.yaml")]:
    seed("yaml", file.read_bytes())

"""What stands before servers, wrongly: an nginx with one fault a port."""

import datetime as day
import os
import signal
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers import Process, free_port, need, wait_until


class CertificateOf:
    """A certificate for `localhost` that vouches for itself, and is valid until some days from now."""

    def __init__(self, folder: Path, days: float) -> None:
        self.cert, self.key = folder / f"cert-{days}.pem", folder / f"key-{days}.pem"
        key, now = ec.generate_private_key(ec.SECP256R1()), day.datetime.now(day.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"localhost {days}")])
        until = now + day.timedelta(days=days, minutes=1)
        made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(until - day.timedelta(days=90)).not_valid_after(until)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.cert.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))


GOOD = "location = /metrics { return 404; } location / { PASS proxy_set_header X-Forwarded-For $remote_addr; %s }"
OF_NGINX_ALONE = "proxy_ignore_headers X-Accel-Buffering;"
PACKING = "gzip on; gzip_proxied any; gzip_types text/event-stream; proxy_set_header Accept-Encoding '';"
FAULTS = {
    "buffering": GOOD % f"{OF_NGINX_ALONE} proxy_http_version 1.0;",
    "packing": GOOD % f"{OF_NGINX_ALONE} {PACKING}",
    "fallback": "location / { return 200 'all is well'; }",
    "errors": "error_page 404 =200 /sorry; location = /sorry { return 200 sorry; }"
    + GOOD % "proxy_intercept_errors on;",
    "open": "location / { PASS proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }",
}
"""What the locations of a port say."""


class Nginx(Process):
    """An nginx before a server: without TLS one port for each of `FAULTS`, with TLS one for each certificate."""

    def __init__(self, folder: Path, server: int, certificates: dict[str, CertificateOf]) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in (*FAULTS, *certificates)}
        passing = f"proxy_pass http://127.0.0.1:{server}; proxy_set_header Connection '';"
        said = {name: f"; {locations}" for name, locations in FAULTS.items()}
        for name, its in certificates.items():
            http2 = "" if name == "http1" else " http2"
            said[name] = f" ssl{http2}; ssl_certificate {its.cert}; ssl_certificate_key {its.key}; {GOOD % ''}"
        blocks = [f"listen 127.0.0.1:{self.ports[it]}{said[it].replace('PASS', passing)}" for it in said]
        scratch = "".join(f"{it}_temp_path {folder}/{it};" for it in ("fastcgi", "uwsgi", "scgi", "proxy"))
        servers = "".join(f"server {{ {block} }}\n" for block in blocks)
        (folder / "nginx.conf").write_text(
            f"{'user root;' if os.geteuid() == 0 else ''} worker_processes 1; pid {folder}/nginx.pid; events {{}}\n"
            f"http {{ access_log off; proxy_http_version 1.1; client_body_temp_path {folder}/body;\n"
            f"{scratch}\n{servers} }}"
        )
        options = ["-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        super().__init__([need("nginx", "nginx"), *options, "-g", "daemon off;"], folder / "out.log")

    def url(self, name: str, host: str = "127.0.0.1") -> str:
        if name in FAULTS:
            return f"http://{host}:{self.ports[name]}"
        return f"https://localhost:{self.ports[name]}"

    def __enter__(self) -> Self:
        self.start()
        wait_until(self._is_up, "nginx starts")
        return self

    def _is_up(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, self.output()
        return (self.folder / "nginx.pid").exists()

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)  # its workers outlive a master that is killed

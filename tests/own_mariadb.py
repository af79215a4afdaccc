"""A MariaDB of one test's own, which it may stop, kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pymysql

from queue_core.testing import eventually
from queue_core.url import parse
from tests.freezing import freeze
from tests.ports import free_port


class OwnMariaDB:
    """In a folder that other users may enter; who made it kills it in the end."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"mysql://root@127.0.0.1:{port}/queue_core"
        user = []
        if os.getuid() == 0:
            user = ["--user=mysql"]
            shutil.chown(folder, "mysql")
        places = [f"--datadir={folder}/data", f"--socket={folder}/s"]
        program = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        self._command = [program, "--no-defaults", *user, *places, f"--port={port}"]
        self._command += ["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"]
        self._log = folder / "log"
        installed = subprocess.run(
            ["mariadb-install-db", "--no-defaults", *user, places[0], "--skip-test-db"]
            + ["--auth-root-authentication-method=normal"],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert installed.returncode == 0, installed.stdout + installed.stderr
        self.process = self._start()
        self.run("CREATE DATABASE queue_core")

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log)
        eventually(self._answers, 60.0)
        return process

    def _answers(self) -> bool:
        try:
            self.run("SELECT 1")
        except pymysql.MySQLError:
            return False
        return True

    def run(self, statement: str) -> None:
        """Run a statement as somebody who may do everything."""
        port = parse(self.url).port
        with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
            connection.cursor().execute(statement)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(30.0)

    def restart(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.process = self._start()

    def pause(self) -> None:
        """Let it stand still; it keeps its connections."""
        freeze(self.process.pid)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

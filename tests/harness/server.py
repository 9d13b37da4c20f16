"""Starts the server under test as a user would, and stops it again."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
READY = re.compile(r"cupola: listening grpc=(\S+) http=(\S+)")
START_SECONDS = 120  # for a hung server; a start takes a second
STOP_SECONDS = 60
# Flags of servers that keep the constants between two dictionaries, and of those
# that have no memory for them.
MEMORY = [(), ("--product_bytes=0",)]


def binary():
    """The server program: in $CUPOLA_BUILD, else in build/."""
    return pathlib.Path(os.environ.get("CUPOLA_BUILD", ROOT / "build"), "cupola_server")


def catalog_text(models, dictionaries):
    """A catalog file: {name: folder} and {name: (model, folder)}, or with a
    string of further fields as the last item of a tuple."""
    lines = []
    for name, value in models.items():
        path, more = value if isinstance(value, tuple) else (value, "")
        lines.append(f'model {{ name: "{name}" path: "{path}" {more} }}')
    for name, (model, path, *more) in dictionaries.items():
        lines.append(
            f'dictionary {{ name: "{name}" model: "{model}" path: "{path}" '
            f"{' '.join(more)} }}"
        )
    return "\n".join(lines) + "\n"


class Server:
    """A running server on free ports. Use as a context manager, or stop() it.

    `folder` holds its catalog, its cache and its log, and may be used again by
    a later server, which then finds the earlier one's cache.
    """

    def __init__(self, folder, catalog, *flags):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "catalog.textproto").write_text(catalog)
        command = [
            str(binary()),
            f"--catalog={self.folder / 'catalog.textproto'}",
            "--listen=127.0.0.1:0",
            "--http=127.0.0.1:0",
            f"--cache_dir={self.folder / 'cache'}",
            *flags,
        ]
        with open(self.folder / "server.log", "a") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.grpc, self.http = self._wait_until_ready()

    def _wait_until_ready(self):
        # Reads until the one line; the timer ends a server that never says it.
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                if found := READY.search(line):
                    return found.groups()
        finally:
            timer.cancel()
        self.process.wait()
        raise RuntimeError(
            f"the server ended with {self.process.returncode}:\n{self.log()[-2000:]}"
        )

    def log(self):
        return (self.folder / "server.log").read_text()

    def wait_until_loaded(self):
        """Returns when every entry of the catalog is resident or has failed."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.get("/readyz")
            except urllib.error.HTTPError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
            time.sleep(0.01)

    def get(self, path):
        """The body of a page of the HTTP port."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=30) as page:
            return page.read().decode()

    def resident_bytes(self, peak=False):
        """The process's resident memory, now or at its highest."""
        key = "VmHWM" if peak else "VmRSS"
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(rf"{key}:\s*(\d+) kB", status)[1])

    def stop(self):
        """SIGTERM; returns the exit status of the drained server."""
        return self._end(signal.SIGTERM)

    def kill(self):
        """SIGKILL: no chance to write anything."""
        return self._end(signal.SIGKILL)

    def _end(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

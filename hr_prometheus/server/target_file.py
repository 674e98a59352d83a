"""A file by which Prometheus discovers this process, as ``file_sd_configs`` has it.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import ExitStack, suppress
from secrets import token_hex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hr_prometheus.errors import ServingError, SettingError
from hr_prometheus.settings import LOCAL_ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

#: The names of the files in their directory. The star is the number of a process, and what tells it from all others.
PATTERN = "hr-prometheus-*.json"


class TargetFile:
    """The file of this process in a *directory*, while it is served; in a ``with`` block it is removed at the end.

    It is locked as long as the process lives. So the files of processes that were killed are known, and removed.
    """

    def __init__(self, directory: str, metrics_url: str) -> None:
        url = urlsplit(metrics_url)
        if not url.hostname:
            problem = f": the metrics are on the Unix socket {metrics_url}, and Prometheus scrapes TCP ports only. Serve them on a port of their own: --metrics-port 9100."
            raise SettingError("file_sd", f'--file-sd "{directory}"', problem)
        host = LOCAL_ADDRESSES.get(url.hostname, url.hostname)
        target = f"[{host}]:{url.port}" if ":" in host else f"{host}:{url.port}"
        labels = {"__scheme__": url.scheme, "__metrics_path__": url.path}
        self._text = json.dumps([{"targets": [target], "labels": labels}], indent=2) + "\n"
        self._directory, self._pid = directory, os.getpid()
        # Containers that share the directory may have the same numbers of processes.
        self._path = os.path.join(directory, PATTERN.replace("*", f"{self._pid}-{token_hex(4)}"))

    def __enter__(self) -> Self:
        """Write the file under another name, so that an error is one before anything is served."""
        try:
            self._remove_those_of_the_dead()
            self._file = open(f"{self._path}.new", "w", encoding="utf-8")  # it stays open
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write(self._text)
            self._file.flush()
        except OSError as error:
            raise ServingError(f'--file-sd "{self._directory}": {error.strerror or error}.') from error
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.withdraw()
        self._file.close()

    def publish(self) -> None:
        """Give the file its name, now that the metrics can be scraped."""
        with suppress(OSError):  # the directory is gone, and with it all who read it
            os.rename(f"{self._path}.new", self._path)

    def withdraw(self) -> None:
        """Remove the file, before the metrics can be reached no more."""
        for path in (self._path, f"{self._path}.new"):
            with suppress(OSError):
                if os.getpid() == self._pid:  # else it is that of the process which has forked this one
                    os.unlink(path)

    def _remove_those_of_the_dead(self) -> None:
        prefix, _, suffix = PATTERN.partition("*")
        for name in os.listdir(self._directory):
            if name.startswith(prefix) and name.endswith((suffix, f"{suffix}.new")):
                path = os.path.join(self._directory, name)
                with suppress(OSError), open(path, encoding="utf-8") as file:  # locked, or another process was quicker
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)


class ScriptTargetFile:
    """The file of a script in a *directory*, if there is one, from when it serves until its stop, which is the script's own."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._file = ExitStack()
        self._is_there = False

    def publish(self, metrics_urls: Sequence[str]) -> None:
        """Write the file, with the first URL that Prometheus can scrape. Only the first call counts, until it is removed."""
        if self._directory is None or self._is_there:
            return
        url = next((each for each in metrics_urls if not each.startswith("unix:")), metrics_urls[0])
        file = self._file.enter_context(TargetFile(self._directory, url))
        self._is_there = True
        file.publish()

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self._file.close()
        self._is_there = False

"""The spool of a process: its own file, and those that dead processes of this machine left for the same broker."""

import hashlib
import logging
import os
import secrets
from pathlib import Path

from progress_broker.routing.address import parse_address
from progress_broker.settings import Settings
from progress_workers.spool.file import SUFFIX, SpoolFile

logger = logging.getLogger(__name__)


def broker_name(settings: Settings) -> str:
    """Return a name of the broker for files. It does not change with a password or a token."""
    if settings.url is not None:
        address = settings.url
    elif settings.redis_url is not None:
        try:
            address = parse_address(settings.redis_url.get_secret_value()).identity
        except ValueError:  # the carrier says what is wrong with it
            address = ""
    else:
        address = str(settings.data_dir)
    return hashlib.sha256(f"{address}\n{settings.prefix}".encode()).hexdigest()[:12]


class Spool:
    """Bounded: all files of the folder together have `max_bytes` at most, as far as this process knows."""

    def __init__(self, folder: Path, broker: str, max_bytes: int) -> None:
        self._folder, self._broker, self._max_bytes = folder, broker, max_bytes
        self._own: SpoolFile | None = None
        self._others_bytes = 0
        self._told_of_failure = False

    @property
    def own(self) -> SpoolFile | None:
        """The file of this process, if there is something to send in it."""
        return self._own if self._own is not None and self._own.unsent else None

    def append(self, records: list[bytes]) -> bool:
        """Write records, all or none. Return whether that was possible; if not, the log says why, once."""
        try:
            if self._own is None:
                self._create()
            size = sum(map(len, records))
            own = self._own
            if own is None or own.size + self._others_bytes + size > self._max_bytes:
                return self._failed("it has reached PROGRESS_SPOOL_MAX_BYTES")
            own.append(records)
        except OSError as error:
            return self._failed(error.strerror or str(error))
        self._told_of_failure = False
        return True

    def take_left(self) -> list[SpoolFile]:
        """Take the files that dead processes left. Those in another format stay, and the log says so."""
        left: list[SpoolFile] = []
        try:
            paths = sorted(self._folder.glob(f"{self._broker}-*{SUFFIX}"))
        except OSError:
            return left
        for path in paths:
            try:
                file = SpoolFile.take(path)
                if file is None:
                    continue
                if file.readable:
                    left.append(file)
                    continue
                what = "is of another release; start a worker of that release to send it"
                logger.warning("the spool file %s %s", path, what if file.is_spool else "is damaged; delete it")
                file.close()
            except OSError as error:
                logger.warning("the spool file %s can't be read: %s", path, error.strerror or error)
        return left

    def drop_own(self) -> None:
        """Delete the own file, after everything in it was sent."""
        if self._own is not None:
            self._own.remove()
            self._own = None

    def after_fork(self) -> None:
        """Restart in a forked child: the file belongs to the parent."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _create(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._others_bytes = sum(path.stat().st_size for path in self._folder.glob(f"*{SUFFIX}"))
        self._own = SpoolFile.create(self._folder / f"{self._broker}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")

    def _failed(self, why: str) -> bool:
        if not self._told_of_failure:
            self._told_of_failure = True
            logger.warning(
                "reports can't be written to the spool %s, so they are only buffered in memory: %s", self._folder, why
            )
        return False

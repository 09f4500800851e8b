"""One spool file: records that are only appended. The process that writes it holds its lock until it ends.

A file begins with `HEADER` and the position up to which its records were sent. Each record is its length and its
CRC-32, four bytes each, and then JSON. What follows a record that is incomplete or damaged is not read.
"""

import fcntl
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Self

HEADER = b"pbspool1"
"""Names the format. A change of it, or of what records contain, needs another number."""
_NAME = HEADER[:7]
SUFFIX = ".spool"
_SENT = struct.Struct(">Q")
_RECORD = struct.Struct(">II")
_FIRST = len(HEADER) + _SENT.size
_MAX_RECORD_BYTES = 64 << 20


class SpoolFile:
    """A spool file that this process has locked. Raises `OSError` where the disk does."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._sent: int | None = None
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def create(cls, path: Path) -> Self:
        """Create an empty file, which is locked before others can see it."""
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, HEADER + _SENT.pack(_FIRST))
            hidden.rename(path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Lock a file whose process has ended; None if it has not, or if another process has taken the file."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return cls(path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    @property
    def readable(self) -> bool:
        """Whether this program knows the file's format."""
        return os.pread(self._descriptor, len(HEADER), 0) == HEADER

    @property
    def is_spool(self) -> bool:
        """Whether it is a spool file of any release."""
        return os.pread(self._descriptor, len(_NAME), 0) == _NAME

    @property
    def sent(self) -> int:
        """The position up to which the records were sent."""
        if self._sent is not None:
            return self._sent
        data = os.pread(self._descriptor, _SENT.size, len(HEADER))
        return max(_FIRST, _SENT.unpack(data)[0]) if len(data) == _SENT.size else _FIRST

    @sent.setter
    def sent(self, position: int) -> None:
        if position == self._sent:
            return
        self._sent = position
        with suppress(OSError):  # then the next process sends more of it again, which is stored once
            os.pwrite(self._descriptor, _SENT.pack(position), len(HEADER))

    @property
    def unsent(self) -> bool:
        """Whether there is something to send. A record that is damaged counts too, and a position beyond the end."""
        return self.size != self.sent

    def append(self, records: list[bytes]) -> None:
        """Add records, all or none."""
        data = b"".join(_RECORD.pack(len(record), zlib.crc32(record)) + record for record in records)
        at, left = self.size, memoryview(data)
        try:
            while left:
                written = os.pwrite(self._descriptor, left, at)
                at, left = at + written, left[written:]
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size = at

    def read(self, at: int) -> tuple[bytes, int] | None:
        """Return the record at a position, and the position after it; None if there is none, or if it is damaged."""
        head = os.pread(self._descriptor, _RECORD.size, at)
        if len(head) < _RECORD.size:
            return None
        length, checksum = _RECORD.unpack(head)
        if length > _MAX_RECORD_BYTES:
            return None
        record = os.pread(self._descriptor, length, at + _RECORD.size)
        if len(record) < length or zlib.crc32(record) != checksum:
            return None
        return record, at + _RECORD.size + length

    def set_aside(self) -> Path:
        """Close the file, and rename it so that nobody takes it again. Return its new path."""
        aside = self._path.with_suffix(".bad")
        with suppress(OSError):
            self._path.rename(aside)
        self.close()
        return aside

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file. Unless a forked process has it open too, this unlocks it."""
        os.close(self._descriptor)

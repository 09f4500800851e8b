"""Files that count their bytes, for code that reads or writes file objects: copies, uploads, archives, tables.

    with open("big.zip", "rb") as file, zipfile.ZipFile(reading(file)) as archive:
        archive.extractall("there")

Access that bypasses the file object isn't counted: `sendfile`, `mmap` and child processes use the file's descriptor,
and `detach()` returns the underlying file, which counts nothing. When you copy a file, wrap only one side with
`reading` or `writing`: with both, each byte counts twice.
"""

import io
import os
import stat
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Any, BinaryIO

from progress_workers._passed import PassedBytes
from progress_workers.base import BaseOperation
from progress_workers.core.progress.stage import Stage
from progress_workers.current import current
from progress_workers.values import attempt, number


class CountedFile(BinaryIO):
    """A binary file that counts the bytes read from it and written to it. Everything else passes to the file itself.

    Each byte position counts once, even if it is read again after a seek: a file of N bytes never counts more than N.
    Closing it closes the file.
    """

    def __init__(self, file: IO[bytes], counts: BaseOperation | Stage) -> None:
        self._file: Any = file
        self._counts = counts
        self._passed = PassedBytes()
        self._at = self._position()
        # A file in append mode always writes at its end, whatever its position is.
        self._end = _end(file) if "a" in str(getattr(file, "mode", "")) and self.seekable() else None
        self._passed.add(0, self._at)

    def _position(self) -> int:
        return self._file.tell() if self.seekable() else 0

    def _pass(self, passed: object) -> None:
        """Count bytes that were read or written. A file-like object may return any value as the number of bytes."""
        size = int(number(passed) or 0)
        if size > 0:
            start, self._at = self._at, self._at + size
            self._counts.advance(self._passed.add(start, self._at))

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, or all remaining bytes."""
        data: bytes = self._file.read(-1 if size is None else size)
        self._pass(_length(data))
        return data

    def readall(self) -> bytes:
        """Read all remaining bytes."""
        data: bytes = self._file.readall() if hasattr(self._file, "readall") else self._file.read()
        self._pass(_length(data))
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """Read with at most one call of the underlying stream."""
        data: bytes = self._file.read1(size)
        self._pass(_length(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer; return the number of bytes."""
        size: int = self._file.readinto(buffer)
        self._pass(size)
        return size

    def readinto1(self, buffer: Any, /) -> int:
        """Read into a buffer with at most one call of the underlying stream; return the number of bytes."""
        size: int = self._file.readinto1(buffer)
        self._pass(size)
        return size

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to the end of the line."""
        line: bytes = self._file.readline(-1 if size is None else size)
        self._pass(_length(line))
        return line

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Read lines until they have `hint` bytes together, or until the end."""
        lines: list[bytes] = self._file.readlines(-1 if hint is None else hint)
        self._pass(sum(map(_length, lines)))
        return lines

    def __iter__(self) -> "CountedFile":
        return self

    def __next__(self) -> bytes:
        line: bytes = next(self._file)
        self._pass(_length(line))
        return line

    def write(self, data: Any, /) -> int:
        """Write; return the number of bytes written."""
        taken: int | None = self._file.write(data)
        if self._end is not None:
            self._at = self._end
        raw = isinstance(self._file, io.RawIOBase)  # raw files return None for "would block"; other objects wrote all
        self._pass(_length(data) if taken is None and not raw else taken)
        if self._end is not None:
            self._end = self._at
        return taken  # type: ignore[return-value]

    def writelines(self, lines: Iterable[Any], /) -> None:
        """Write all the lines."""
        for line in lines:
            self.write(line)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position. This alone counts nothing."""
        at: int | None = self._file.seek(offset, whence)
        self._at = self._position() if at is None else at
        return self._at

    def tell(self) -> int:
        """Return the position."""
        at: int = self._file.tell()
        return at

    def truncate(self, size: int | None = None, /) -> int:
        """Truncate the file. Bytes counted before stay counted."""
        kept: int = self._file.truncate(size)
        return kept

    def flush(self) -> None:
        """Flush the file's write buffer."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def fileno(self) -> int:
        """Return the file's descriptor. Bytes read or written through it aren't counted."""
        descriptor: int = self._file.fileno()
        return descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return bool(self._file.isatty())

    def readable(self) -> bool:
        """Return whether it can be read."""
        return self._can("readable", "read")

    def writable(self) -> bool:
        """Return whether it can be written."""
        return self._can("writable", "write")

    def seekable(self) -> bool:
        """Return whether its position can be changed."""
        return self._can("seekable", "seek")

    def _can(self, question: str, method: str) -> bool:
        method_of_file = getattr(self._file, question, None)  # a file-like object may lack this method
        return hasattr(self._file, method) if method_of_file is None else bool(method_of_file())

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(getattr(self._file, "closed", False))

    @property
    def mode(self) -> str:
        """The mode in which it was opened."""
        mode: str = self._file.mode
        return mode

    @property
    def name(self) -> str:
        """The file's name."""
        name: str = self._file.name
        return name

    def __getattr__(self, name: str) -> Any:
        if name == "_file":
            raise AttributeError(name)  # not set yet, or already deleted
        return getattr(self._file, name)

    def __enter__(self) -> "CountedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


io.BufferedIOBase.register(
    CountedFile
)  # for isinstance checks; as a base class it would close a file that it did not open


def reading(
    file: IO[bytes], operation: BaseOperation | Stage | None = None, *, total: int | None = None
) -> CountedFile:
    """Wrap a file so that each byte counts as done when it is read, for an operation or a stage.

    By default this is the current operation. The file's size is added to the total if the size is known: for an
    ordinary file, a `BytesIO`, or with `total`. Bytes before the file's current position count as skipped.
    """
    _check(file, "read", "reading(open(path, 'rb'))")
    return _counted(file, operation, size(file) if total is None else total)


def writing(
    file: IO[bytes], operation: BaseOperation | Stage | None = None, *, total: int | None = None
) -> CountedFile:
    """Wrap a file so that each byte counts as done when it is written; `total` is the number of bytes it will hold."""
    _check(file, "write", "writing(open(path, 'wb'))")
    return _counted(file, operation, total)


def size(file: IO[bytes]) -> int | None:
    """Return the file's size in bytes; None if the descriptor does not tell it, as with compressed files and pipes."""
    if isinstance(file, io.BytesIO):
        return file.getbuffer().nbytes
    raw = getattr(file, "raw", file)
    if not isinstance(raw, io.FileIO):
        return None
    status = os.fstat(raw.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _length(data: Any) -> int:
    """Return the number of bytes in data; 0 for other values, such as None, which means that no data is available."""
    return attempt(lambda: memoryview(data).nbytes, otherwise=lambda _: attempt(len, data, otherwise=lambda _: 0))


def _end(file: IO[bytes]) -> int:
    at = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(at)
    return end


def _check(file: object, method: str, example: str) -> None:
    if isinstance(file, io.TextIOBase):
        raise TypeError(
            "only bytes can be counted, but this is a text file: open it with 'b' and wrap it in a TextIOWrapper"
        )
    if not hasattr(file, method):
        raise TypeError(f"expected a file object, not {type(file).__name__}: {example}")


def _counted(file: IO[bytes], operation: BaseOperation | Stage | None, total: int | None) -> CountedFile:
    counts = current() if operation is None else operation
    counted = CountedFile(file, counts)
    expected = number(total)
    if expected is not None:
        whole = int(expected)
        counts.track(range(whole))  # only its length matters: it is added to the total, unless one was set
        skipped = min(counted._at, whole)
        if skipped:
            counts.skip(skipped)
        counts.update()  # report it now, and not with the first bytes
    return counted

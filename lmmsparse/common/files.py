"""A path → a file that is written whole or not at all, or read; errors say what is in the way."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lmmsparse.common.errors import StorageError
from lmmsparse.common.words import brief

_SEPARATORS = tuple(each for each in (os.sep, os.altsep) if each)
_MOST_LINKS = 40  # as many as Linux follows
_OPEN_FILES = re.compile(r"/proc/\d+/(task/\d+/)?fd$")


class MissingFileError(StorageError, FileNotFoundError):
    """There is no such file."""


def as_path(path: Any) -> Path:
    """A path, or an error that says what one is."""
    try:
        return Path(path)
    except TypeError as error:
        raise StorageError(
            f"{brief(path)} is not a path. Name a file, for example 'model.lmm'."
        ) from error


def as_place(path: Any) -> Path:
    """A path under which something can be written, as far as its name goes."""
    place = as_path(path)
    with _in_own_words(place, "written"):
        _stat(os.fspath(place))
    return place


def write_whole(place: Any, write: Callable[[IO[bytes]], object]) -> None:
    """Put a file in its place when it is complete; links are followed, its mode is kept.

    Until then it has a name of its own that nobody knows, in the same directory; whatever happens,
    nothing else is left.

    Parameters
    ----------
    place : str or Path
        Of the file.
    write : callable
        Writes what is in it.
    """
    path = as_path(place)
    if str(place).endswith(_SEPARATORS):
        raise _refused(path, "written", "a name that ends in a separator is that of a directory")
    with _in_own_words(path, "written"):
        if _is_open_file(path):
            raise _refused(path, "written", "it is an open file of a process")
        target = os.path.realpath(path)
        old = _stat(target)
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise _refused(path, "written", f"it is {_kind(old.st_mode)}")
        if not os.path.isdir(directory := os.path.dirname(target)):
            raise _refused(path, "written", f"there is no directory {directory}")
        if old is not None and not os.access(target, os.W_OK):
            raise _refused(path, "written", "it is write-protected")
        own = os.path.join(directory, f".lmm-{secrets.token_hex(16)}.part")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(own, flags, 0o666 if old is None else 0o600), "w+b") as file:
                if old is not None:
                    _give(own, old)
                write(file)
                file.flush()
                _reach_the_disk(file.fileno())
            os.replace(own, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(own)
            raise


def write_content(place: Any, content: bytes) -> None:
    """The same for content that devices, pipes and open files of a process take as well."""
    path = as_path(place)
    with _in_own_words(path, "written"):
        old = _stat(os.fspath(path))
        if not _is_open_file(path) and (old is None or stat.S_ISREG(old.st_mode)):
            write_whole(place, lambda file: file.write(content))
            return
        if old is not None and stat.S_ISDIR(old.st_mode):
            raise _refused(path, "written", "it is a directory")
        # A pipe that nobody reads is an error at once, where it would wait for ever.
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags)
        if hasattr(os, "set_blocking"):
            os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def _is_open_file(path: Path) -> bool:
    """Whether a name stands for an open file of a process, itself or by links."""
    place = os.fspath(path)
    for _ in range(_MOST_LINKS):
        directory = os.path.dirname(place)
        if _OPEN_FILES.match(os.path.realpath(directory)):
            return True
        if not os.path.islink(place):
            return False
        place = os.path.join(directory, os.readlink(place))
    return False


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _give(path: str, old: os.stat_result) -> None:
    """Owner, where that is possible, and mode of another file."""
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, old.st_mode & 0o777)  # who runs a program as whom is not for new contents


def _reach_the_disk(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # cannot be asked for
            raise


def _kind(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a directory",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((name for test, name in kinds.items() if test(mode)), "not a file")


def _refused(path: Path, done: str, why: str) -> StorageError:
    advice = {
        "written": "Name a file in a directory that exists and that you may write to.",
        "read": "Name the file that m.save(path) has written.",
    }
    return StorageError(f"{str(path)!r} cannot be {done}: {why}. {advice[done]}")


@contextmanager
def _in_own_words(path: Path, done: str) -> Iterator[None]:
    """Whatever the operating system says about a path, as an error of this package."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if done == "written":
            raise _refused(path, done, "its directory is gone") from error
        raise MissingFileError(f"There is no file {str(path)!r}. Check the path.") from error
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"the disk is full ({why})"
        raise _refused(path, done, why) from error
    except ValueError as error:
        raise _refused(path, done, f"the name is not possible ({error})") from error


@contextmanager
def opened(path: Any) -> Iterator[IO[bytes]]:
    """A regular file, open for reading."""
    source = as_path(path)
    with _in_own_words(source, "read"):
        mode = os.stat(source).st_mode  # opening a pipe would wait for somebody to write
        if not stat.S_ISREG(mode):
            raise _refused(source, "read", f"it is {_kind(mode)}")
        file = open(source, "rb")  # noqa: SIM115 (errors inside the block are not ours)
    with file:
        yield file

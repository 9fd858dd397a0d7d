"""A DataFrame as CSV: text, or a file that is written whole."""

from __future__ import annotations

import io
from typing import Any

from lmmsparse.common.errors import MissingPackageError
from lmmsparse.common.files import as_path, write_content

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}


def as_csv(frame: Any, path: Any, index: bool) -> str | None:
    """CSV with all digits, written to a path or an open file, or returned if that is None."""
    options: dict[str, Any] = {"index": index, "lineterminator": "\n"}
    if path is None or hasattr(path, "write"):
        text: str | None = frame.to_csv(path, **options)
        return text
    place = as_path(path)
    method = _COMPRESSIONS.get(place.suffix.lower())
    if method == "zip":
        options["compression"] = {"method": method, "archive_name": place.stem}
    elif method is not None:
        options["compression"] = method
    content = io.BytesIO()
    try:
        frame.to_csv(content, **options)
    except ImportError as error:
        raise MissingPackageError(
            f"{place.suffix} files are written with the package zstandard, which is not installed: "
            "pip install zstandard."
        ) from error
    write_content(path, content.getvalue())
    return None

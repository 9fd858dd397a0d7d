"""Predictions for a source → a folder of Parquet files, which is there when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks.after import Reader
from lmmsparse.common.errors import MissingPackageError, OptionError, StorageError
from lmmsparse.common.files import as_place
from lmmsparse.common.options import names_in
from lmmsparse.fit.fit import Fit
from lmmsparse.results.predict import predict


def write_predictions(
    fit: Fit,
    data: Any,
    folder: Any,
    columns: str | Sequence[str],
    random: bool | str,
    new_levels: str,
    rows: int,
    progress: bool | None,
) -> list[Path]:
    """Predict for a source and write; see `LinearMixedModel.write_predictions`."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError(
            "Parquet files are written with pyarrow, which is not installed: pip install pyarrow."
        ) from error
    target = as_place(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StorageError(
            f"{str(target)!r} is there already and is no empty folder. Name another one, or empty "
            "it first."
        )
    others = tuple(names_in("columns", columns, "Name columns of the data."))
    if "predicted" in others:
        raise OptionError(
            "columns= names 'predicted', which is the name of the predictions. Leave it out."
        )
    reader = Reader(fit, data, rows, "predicting", progress, others)
    own = target.parent / f".lmm-{secrets.token_hex(8)}.part"
    names = []
    try:
        own.mkdir(parents=True)
        for i, (batch, _) in enumerate(reader):
            values = predict(fit, batch.frame, random, new_levels)[0]
            frame = batch.decoded(np.arange(len(batch)))[list(others)]
            frame = frame.assign(predicted=pd.Series(values, index=frame.index))
            names.append(f"part-{i:05d}.parquet")
            table = pyarrow.Table.from_pandas(frame, preserve_index=False)
            pyarrow.parquet.write_table(table, own / names[-1])
        if target.exists():
            target.rmdir()
        os.replace(own, target)
    except OSError as error:
        raise StorageError(
            f"The predictions cannot be written to {str(target)!r}: {error}. Name a folder in a "
            "directory that exists and that you may write to."
        ) from error
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return [target / name for name in names]

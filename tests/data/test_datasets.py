"""The shipped data sets: complete, described, typed, and with R's order of levels."""

from __future__ import annotations

import pandas as pd
import pytest

from lmmsparse.common.errors import OptionError
from lmmsparse.data.datasets import DATASETS, load_dataset

NAMES = sorted(DATASETS)

LEVELS = {
    ("Dyestuff", "Batch"): list("ABCDEF"),
    ("InstEval", "dept"): [15, 5, 10, 12, 6, 7, 4, 8, 9, 14, 1, 3, 11, 2],
    ("InstEval", "lectage"): [1, 2, 3, 4, 5, 6],
    ("InstEval", "service"): [0, 1],
    ("InstEval", "studage"): [2, 4, 6, 8],
    ("Pastes", "batch"): list("ABCDEFGHIJ"),
    ("Penicillin", "plate"): list("abcdefghijklmnopqrstuvwx"),
    ("Sitka", "treat"): ["control", "ozone"],
    ("Sitka", "tree"): list(range(1, 80)),
    ("cake", "replicate"): list(range(1, 16)),
    ("cake", "temperature"): [175, 185, 195, 205, 215, 225],
    ("cbpp", "period"): [1, 2, 3, 4],
    ("dietox", "Cu"): ["Cu000", "Cu035", "Cu175"],
    ("dietox", "Evit"): ["Evit000", "Evit100", "Evit200"],
    ("oats", "B"): ["I", "II", "III", "IV", "V", "VI"],
    ("oats", "N"): ["0.0cwt", "0.2cwt", "0.4cwt", "0.6cwt"],
    ("oats", "V"): ["Golden.rain", "Marvellous", "Victory"],
}

N_LEVELS = {
    ("InstEval", "s"): 2972,
    ("InstEval", "d"): 1128,
    ("Pastes", "sample"): 30,
    ("dietox", "Litter"): 21,
    ("grouseticks", "BROOD"): 118,
    ("grouseticks", "LOCATION"): 63,
    ("dietox", "Pig"): 72,
    ("sleepstudy", "Subject"): 18,
}


def test_these_are_shipped() -> None:
    assert NAMES == [
        "Dyestuff",
        "Dyestuff2",
        "InstEval",
        "Pastes",
        "Penicillin",
        "Sitka",
        "cake",
        "cbpp",
        "dietox",
        "grouseticks",
        "oats",
        "sleepstudy",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_frame_is_what_the_description_says(name: str) -> None:
    info = DATASETS[name]
    frame = load_dataset(name)
    assert len(frame) == info.rows
    assert list(frame.columns) == list(info.columns)
    assert isinstance(frame.index, pd.RangeIndex)
    for column in frame.columns:
        if column in info.factors:
            assert isinstance(frame[column].dtype, pd.CategoricalDtype)
            assert not frame[column].cat.ordered
            assert frame[column].notna().all()
            assert set(frame[column]) == set(frame[column].cat.categories)
        else:
            assert pd.api.types.is_numeric_dtype(frame[column])


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_described(name: str) -> None:
    info = DATASETS[name]
    assert info.name == name
    for text in (info.title, info.description, info.source, info.citation, *info.columns.values()):
        assert len(text) > 5
    assert len(info.title) <= 90
    assert info.description.endswith(".")
    assert info.citation.endswith(".")


@pytest.mark.parametrize(("name", "column"), sorted(LEVELS))
def test_levels_have_r_s_order(name: str, column: str) -> None:
    assert list(load_dataset(name)[column].cat.categories) == LEVELS[name, column]


@pytest.mark.parametrize(("name", "column"), sorted(N_LEVELS))
def test_numbers_of_levels(name: str, column: str) -> None:
    assert load_dataset(name)[column].cat.categories.size == N_LEVELS[name, column]


def test_missing_values_stay_missing() -> None:
    dietox = load_dataset("dietox")
    assert dietox["Feed"].isna().sum() == 72
    assert (dietox.loc[dietox["Feed"].isna(), "Time"] == 1).all()
    assert dietox.drop(columns="Feed").notna().all(axis=None)


def test_a_frame_can_be_changed_without_changing_the_next() -> None:
    first = load_dataset("sleepstudy")
    first["Reaction"] = 0.0
    assert load_dataset("sleepstudy")["Reaction"].mean() == pytest.approx(298.507892)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("sitka", "'Sitka'"), ("sleepstdy", "'sleepstudy'"), ("Cake", "'cake'")],
)
def test_a_wrong_name_gets_a_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_dataset(name)
    assert repr(name) in str(caught.value)
    assert f"Did you mean {suggestion}" in str(caught.value)


@pytest.mark.parametrize("name", ["iris", "", 3, None])
def test_an_unknown_name_gets_the_list(name: object) -> None:
    with pytest.raises(OptionError, match="Dyestuff, Dyestuff2, InstEval"):
        load_dataset(name)  # type: ignore[arg-type]


def test_the_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DATASETS["mine"] = DATASETS["cake"]  # type: ignore[index]

"""The command line: what it prints, what it writes, and how it takes wrong input."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.cli.main import OPTIMIZERS, main
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.data.datasets import DATASETS
from lmmsparse.data.reading import read_data

SLEEP = "Reaction ~ Days + (Days|Subject)"


@pytest.fixture
def sleep_csv(tmp_path: Path) -> str:
    path = tmp_path / "sleep.csv"
    lmm.load_dataset("sleepstudy").to_csv(path, index=False)
    return str(path)


def test_fit_prints_the_summary(sleep_csv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", SLEEP, sleep_csv]) == 0
    out, err = capsys.readouterr()
    assert SLEEP in out
    for figure in ("1743.6", "251.4", "6.825", "180", "Subject"):
        assert figure in out
    assert err == ""


WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "d.csv": lambda frame, path: frame.to_csv(path, index=False),
    "d.CSV": lambda frame, path: frame.to_csv(path, index=False),
    "d.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "d.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "d.txt": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "d.parquet": lambda frame, path: frame.to_parquet(path),
    "my.data.csv": lambda frame, path: frame.to_csv(path, index=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_frame(name: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"g": ["001", "NA-x", "ä b"], "x": [1.5, None, 3.0], "n": [1, 2, 3]})
    WRITERS[name](frame, tmp_path / name)
    read = read_data(str(tmp_path / name))
    if name.endswith("parquet"):
        pd.testing.assert_frame_equal(read, frame)
    else:
        # In a text file "001" cannot be told from a number, but a column with a word in it is text.
        assert list(read["g"]) == ["001", "NA-x", "ä b"]
        pd.testing.assert_frame_equal(read[["x", "n"]], frame[["x", "n"]])


def test_a_data_set_is_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "Yield ~ 1 + (1|Batch)", "Dyestuff"]) == 0
    assert "319.7" in capsys.readouterr().out


def test_a_file_comes_before_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Dyestuff").mkdir()
    with pytest.raises(DataError, match="'Dyestuff'"):
        read_data("Dyestuff")


def test_words_for_missing_values_and_notes_that_come_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = lmm.load_dataset("sleepstudy").astype({"Reaction": object})
    data.loc[[3, 5], "Reaction"] = "timeout"
    data["half"] = ["a", "a "] * 90
    path = str(tmp_path / "sleep.csv")
    data.to_csv(path, index=False)
    assert main(["fit", SLEEP, path]) == 2
    assert "All but 'timeout' are numbers" in capsys.readouterr().err
    words = ["fit", "Reaction ~ half + (1|Subject)", path, "--missing", "timeout", "--ci", "boot"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "2 of 180 rows" in out
    assert err.count("'a', 'a '") == 1


def test_maximum_likelihood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "Yield ~ 1 + (1|Batch)", "Dyestuff", "--ml"]) == 0
    assert "327.3" in capsys.readouterr().out


def test_weights_and_offset_are_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = lmm.load_dataset("sleepstudy").assign(w=2.0, o=100.0)
    frame.to_csv(tmp_path / "s.csv", index=False)
    path = tmp_path / "m.json"
    words = ["fit", SLEEP, str(tmp_path / "s.csv"), "--weights", "w", "--offset", "o"]
    assert main([*words, "--json", str(path)]) == 0
    capsys.readouterr()
    found = json.loads(path.read_text())
    assert found["fixef"][0]["estimate"] == pytest.approx(251.405105 - 100, abs=1e-4)
    assert found["sigma"] == pytest.approx(25.591796 * 2**0.5, rel=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_can_be_chosen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "Yield ~ 1 + (1|Batch)", "Dyestuff", "--optimizer", name]) == 0
    assert "319.7" in capsys.readouterr().out


def test_confidence_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", SLEEP, "sleepstudy", "--ci", "wald", "--level", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "wald, 0.9" in out
    assert "lower" in out
    assert "Intercept                   240.2  262.6" in out


def test_random_effects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", SLEEP, "sleepstudy", "--ranef"]) == 0
    out = capsys.readouterr().out
    assert "Random effects of Subject" in out
    assert "2.258" in out
    assert "372" in out


def test_json_holds_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.json"
    words = ["fit", SLEEP, "sleepstudy", "--json", str(path), "--ranef", "--ci", "wald"]
    assert main(words) == 0
    capsys.readouterr()
    found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    model = lmm.lmer(SLEEP, lmm.load_dataset("sleepstudy"))
    assert found["lmmsparse"] == lmm.__version__
    assert found["reml"] is True
    assert found["nobs"] == 180
    assert found["n_groups"] == {"Subject": 18}
    for name in ("loglik", "aic", "bic", "sigma"):
        assert found[name] == pytest.approx(getattr(model, name), rel=1e-12)
    assert found["criterion"] == pytest.approx(1743.6282719585, rel=1e-9)
    assert found["npar"] == 6
    assert found["df_resid"] == 174
    assert list(found["theta"].values()) == pytest.approx(list(model.theta), rel=1e-12)
    assert [row["term"] for row in found["fixef"]] == ["Intercept", "Days"]
    assert [row["estimate"] for row in found["fixef"]] == pytest.approx(list(model.fixef))
    assert [row["se"] for row in found["fixef"]] == pytest.approx(list(model.se))
    assert found["vcov"][0][1] == pytest.approx(model.vcov.iloc[0, 1])
    assert len(found["varcorr"]) == 4
    assert found["varcorr"][-1]["group"] == "Residual"
    assert found["varcorr"][-1]["vcov"] == pytest.approx(model.sigma**2)
    assert found["ranef"]["Subject"][0]["level"] == 308
    assert found["ranef"]["Subject"][0]["effects"]["Days"] == pytest.approx(9.1989, abs=1e-3)
    assert found["converged"] is True
    assert found["singular"] is False
    assert found["evaluations"] == model.convergence.evaluations
    assert found["findings"] == []
    days = next(row for row in found["confint"] if row["parameter"] == "Days")
    assert days["lower"] == pytest.approx(10.467286 - 1.959964 * 1.545790, abs=1e-4)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def test_a_singular_fit_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    assert main(["fit", "Yield ~ 1 + (1|Batch)", "Dyestuff2", "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "161.8" in out
    assert err.startswith("note: ")
    found = json.loads(path.read_text())
    assert found["singular"] is True
    assert found["findings"]
    assert {"code", "level", "message"} == set(found["findings"][0])


FAILURES = {
    "unknown column": (["fit", "Reaction ~ Hours + (1|Subject)", "sleepstudy"], "Hours"),
    "unknown group": (["fit", "Reaction ~ Days + (1|Person)", "sleepstudy"], "Person"),
    "no random term": (["fit", "Reaction ~ Days", "sleepstudy"], "random"),
    "broken formula": (["fit", "Reaction ~ Days + (1|Subject", "sleepstudy"], "^"),
    "unknown data set": (["fit", SLEEP, "sleepstudies"], "Did you mean 'sleepstudy'"),
    "missing file": (["fit", SLEEP, "nowhere/s.csv"], "nowhere/s.csv"),
    "empty file": (["fit", SLEEP, "empty.csv"], "empty.csv"),
    "ragged file": (["fit", SLEEP, "ragged.csv"], "line 3"),
    "not text": (["fit", SLEEP, "binary.csv"], "binary.csv"),
    "not Parquet": (["fit", SLEEP, "fake.parquet"], "fake.parquet"),
    "unknown kind": (["fit", SLEEP, "data.docx"], "CSV"),
    "a directory": (["fit", SLEEP, "folder.csv"], "folder.csv"),
    "unknown ddf": (["fit", SLEEP, "sleepstudy", "--ddf", "exact"], "exact"),
    "unknown interval": (["fit", SLEEP, "sleepstudy", "--ci", "magic"], "magic"),
    "unknown weights": (["fit", SLEEP, "sleepstudy", "--weights", "w"], "'w'"),
    "missing values": (
        ["fit", "Weight ~ Feed + (1|Pig)", "dietox", "--na-action", "raise"],
        "Feed",
    ),
    "no such place": (["fit", SLEEP, "sleepstudy", "--json", "nowhere/m.json"], "nowhere/m.json"),
    "unknown description": (["datasets", "iris"], "sleepstudy"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_wrong_input_gets_one_paragraph_and_code_2(
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").touch()
    Path("ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    Path("binary.csv").write_bytes(bytes(range(256)) * 4)
    Path("fake.parquet").write_text("a,b\n1,2\n")
    Path("data.docx").touch()
    Path("folder.csv").mkdir()
    words, mentioned = FAILURES[what]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("lmmsparse: ")
    assert mentioned in err
    assert "Traceback" not in err
    assert "\n\n" not in err.strip()


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        ([], "COMMAND"),
        (["fit"], "formula"),
        (["fit", SLEEP, "sleepstudy", "--level", "95"], "between 0 and 1"),
        (["fit", SLEEP, "sleepstudy", "--optimizer", "newton"], "bobyqa"),
        (["refit"], "refit"),
    ],
)
def test_wrong_usage_is_explained(
    words: list[str], mentioned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert mentioned in capsys.readouterr().err


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_pyarrow(path: Path) -> pd.DataFrame:
        raise ImportError("no engine")

    monkeypatch.setattr(pd, "read_parquet", without_pyarrow)
    (tmp_path / "d.parquet").touch()
    with pytest.raises(DataError, match="pip install pyarrow"):
        read_data(str(tmp_path / "d.parquet"))


def test_a_name_that_is_nothing_gets_the_list_of_data_sets() -> None:
    with pytest.raises(OptionError, match="Dyestuff2"):
        read_data("nothing")


def test_datasets_lists_and_describes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    for name, info in DATASETS.items():
        assert f"{name} " in out
        assert info.title in out
    assert main(["datasets", "Sitka"]) == 0
    out = capsys.readouterr().out
    assert "Diggle" in out
    assert "control or ozone (factor)" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lmmsparse {lmm.__version__}\n"


def test_the_demo_agrees_with_lmer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for figure in ("4809.550672", "4434.094918", "4434.696128", "164.776806", "124.966889"):
        assert figure in out
    assert "<- differs" not in out
    assert out.rstrip().endswith("43 of 43 figures agree with lmer's.")


def test_python_m_lmmsparse() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmmsparse", "fit", "y ~ x + (1|g)", "nowhere.csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("lmmsparse: There is no file 'nowhere.csv'")


def test_a_closed_pipe_is_not_an_error() -> None:
    command = [sys.executable, "-m", "lmmsparse", "datasets"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command line as a shell takes it, `lmmsparse` standing for this Python's."""
    words = command.replace("lmmsparse ", f"{sys.executable} -m lmmsparse ", 1)
    return subprocess.run(
        words, shell=True, capture_output=True, text=True, cwd=folder, timeout=120, check=False
    )


FIT = "lmmsparse fit 'Reaction ~ Days + (Days|Subject)' "


def damaged(name: str, path: Path) -> None:
    """Write a file that is not what its name says, or not all of it."""
    text = lmm.load_dataset("sleepstudy").to_csv(index=False).encode()
    packed = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
    kind = name.rpartition(".")[2]
    if name.startswith("cut"):
        path.write_bytes(packed[kind](text)[:-30])
    else:
        path.write_bytes(np.random.default_rng(1).bytes(400))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "cut.csv.gz",
            "cut.csv.xz",
            "cut.csv.bz2",
            "noise.csv.gz",
            "noise.csv.xz",
            "noise.csv.bz2",
        ),
        *("noise.csv.zip", "noise.csv.zst", "noise.parquet", "noise.csv", "noise.tsv.gz"),
    ],
)
def test_damaged_files_get_one_paragraph(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged(name, tmp_path / name)
    assert main(["fit", SLEEP, str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("lmmsparse: ")
    assert name in err
    assert err.count("\n") == 1


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (FIT + "sleep.csv > /dev/full", "No space left"),
        ("lmmsparse datasets > /dev/full", "No space left"),
        ("lmmsparse --help > /dev/full", "No space left"),
        ("lmmsparse fit --help > /dev/full", "No space left"),
        ("lmmsparse --version > /dev/full", "No space left"),
        ("lmmsparse fit 2>/dev/full", ""),
        ("lmmsparse fit 2>&-", ""),
        (FIT + "sleep.csv >&-", "standard output is closed"),
        ("lmmsparse --version >&-", "standard output is closed"),
        (FIT + "nothing.csv 2>&-", ""),
        (FIT + "nothing.csv 2>/dev/full", ""),
        (FIT + "sleep.csv --json /dev/full", "cannot be written"),
        ("mkfifo pipe.csv; " + FIT + "pipe.csv", "is a pipe"),
        ("mkfifo out; " + FIT + "sleep.csv --json out", "cannot be written"),
        (FIT + "sleep.csv --json sleep.csv", "would replace the data"),
        ("ln -s sleep.csv twin; " + FIT + "sleep.csv --json twin", "would replace the data"),
        ("ln sleep.csv twin; " + FIT + "sleep.csv --json twin", "would replace the data"),
        (FIT + "- --json sleep.csv < sleep.csv", "would replace the data"),
        (FIT + "sleep.csv >> sleep.csv", "written into the data"),
        (FIT + "sleep.csv --json out/", "cannot be written"),
        (FIT + "sleep.csv --json .", "cannot be written"),
        (FIT + "sleep.csv --json none/out.json", "cannot be written"),
        (FIT + "a" * 300 + ".csv", "no file"),
    ],
)
def test_places_that_cannot_be_used_get_one_paragraph(
    command: str, words: str, sleep_csv: str, tmp_path: Path
) -> None:
    before = Path(sleep_csv).read_bytes()
    done = run(command, tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("lmmsparse: ") == (1 if words else 0)
    assert Path(sleep_csv).read_bytes() == before


def test_a_terminal_without_the_letters_gets_others(sleep_csv: str, tmp_path: Path) -> None:
    fit = FIT.replace("Days|Subject", "Days|Kind") + "other.csv"
    table = (
        lmm.load_dataset("sleepstudy").astype({"Subject": str}).rename(columns={"Subject": "Kind"})
    )
    table["Kind"] = "Größe −" + table["Kind"]
    table.to_csv(tmp_path / "other.csv", index=False)
    done = run("PYTHONIOENCODING=ascii " + fit + " --ranef", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Grosse -308" in done.stdout.replace("Gro\\xdfe", "Grosse")
    assert "?" not in done.stdout


# What is read ------------------------------------------------------------------------------------

ENCODED = pd.DataFrame({"Größe": [1.5, 2.5, 3.0], "ort": ["Köln", "Århus", "“x”"]})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz", "d.tsv"])
def test_an_encoding_is_guessed_and_named(name: str, encoding: str, tmp_path: Path) -> None:
    sep = "\t" if name.endswith("tsv") else ","
    ENCODED.to_csv(tmp_path / name, index=False, encoding=encoding, sep=sep)
    path = str(tmp_path / name)
    if encoding.startswith("utf-8"):
        read = read_data(path)
    else:
        with pytest.warns(lmm.LmmWarning, match=f"read as {encoding}"):
            read = read_data(path)
    pd.testing.assert_frame_equal(read, ENCODED, check_dtype=False)
    pd.testing.assert_frame_equal(read_data(path, encoding=encoding), ENCODED, check_dtype=False)


@pytest.mark.parametrize("letters", ["Köln", "Kölnå"])
def test_western_letters_are_not_those_of_the_far_east(letters: str, tmp_path: Path) -> None:
    text = f"x,ort\n1,{letters}\n2,{letters}\n"
    for encoding in ("cp1252", "utf-16-be"):
        (tmp_path / "d.csv").write_bytes(text.encode(encoding))
        with pytest.warns(lmm.LmmWarning, match=f"read as {encoding}"):
            assert list(read_data(str(tmp_path / "d.csv"))["ort"]) == [letters] * 2
    text = "x,ort\n1,東京都千代田区\n2,大阪府大阪市\n"
    (tmp_path / "d.csv").write_bytes(text.encode("utf-16-le"))
    with pytest.warns(lmm.LmmWarning, match="read as utf-16-le"):
        assert read_data(str(tmp_path / "d.csv"))["ort"][0] == "東京都千代田区"


def test_an_encoding_that_is_not_the_files(tmp_path: Path) -> None:
    path = str(tmp_path / "d.csv")
    ENCODED.to_csv(path, index=False, encoding="cp1252")
    with pytest.raises(DataError, match="not text in the encoding utf-8"):
        read_data(path, encoding="utf-8")
    with pytest.raises(DataError, match="no encoding 'klingon'"):
        read_data(path, encoding="klingon")


@pytest.mark.parametrize(
    ("text", "sep"),
    [
        ("x;y\n1,5;a\n2,5;b\n", None),
        ("x;y\n1.5;a\n2.5;b\n", None),
        ("x;y\n1.5;a\n2.5;b\n", ";"),
        ("x\ty\n1.5\ta\n2.5\tb\n", None),
        ("x\ty\n1.5\ta\n2.5\tb\n", "tab"),
        ("x\ty\n1.5\ta\n2.5\tb\n", r"\t"),
        ("x|y\n1.5|a\n2.5|b\n", "|"),
        ("x y\n1.5 a\n2.5 b\n", " "),
    ],
)
def test_what_stands_between_columns(text: str, sep: str | None, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(text)
    read = read_data(str(tmp_path / "d.csv"), sep=sep)
    assert read.to_dict("list") == {"x": [1.5, 2.5], "y": ["a", "b"]}


def test_a_separator_is_one_character(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="one character"):
        read_data(str(tmp_path / "d.csv"), sep="::")


OTHERS: dict[str, tuple[str, Callable[[pd.DataFrame, Path], object]]] = {
    "d.feather": ("pyarrow", lambda frame, path: frame.to_feather(path)),
    "d.dta": ("pandas", lambda frame, path: frame.to_stata(path, write_index=False)),
    "d.xlsx": ("openpyxl", lambda frame, path: frame.to_excel(path, index=False)),
    "d.sav": ("pyreadstat", lambda frame, path: pyreadstat.write_sav(frame, path)),
}
pyreadstat: Any = None


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_programs(name: str, tmp_path: Path) -> None:
    global pyreadstat
    package, write = OTHERS[name]
    module = pytest.importorskip(package)
    if package == "pyreadstat":
        pyreadstat = module
    write(lmm.load_dataset("sleepstudy").astype({"Subject": str}), tmp_path / name)
    m = lmm.lmer(SLEEP, read_data(str(tmp_path / name)))
    assert m.reml_criterion == pytest.approx(1743.6283, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "reader", "package"),
    [
        ("d.feather", "read_feather", "pyarrow"),
        ("d.xlsx", "read_excel", "openpyxl"),
        ("d.xls", "read_excel", "xlrd"),
        ("d.sav", "read_spss", "pyreadstat"),
    ],
)
def test_a_missing_reader_is_named(
    name: str, reader: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> pd.DataFrame:
        raise ImportError("not there")

    monkeypatch.setattr(pd, reader, absent)
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"pip install {package}`"):
        read_data(str(tmp_path / name))


@pytest.mark.long
def test_standard_input(sleep_csv: str, tmp_path: Path) -> None:
    done = run("cat sleep.csv | " + FIT + "-", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1743.6" in done.stdout
    empty = run(FIT + "- < /dev/null", tmp_path)
    assert empty.returncode == 2
    assert "Nothing came from the standard input" in empty.stderr
    closed = run(FIT + "- <&-", tmp_path)
    assert closed.returncode == 2
    assert "standard input is closed" in closed.stderr


# What is written ---------------------------------------------------------------------------------


def test_json_is_there_when_the_pipe_has_been_closed(sleep_csv: str, tmp_path: Path) -> None:
    done = run(FIT + "sleep.csv --json out.json | true", tmp_path)
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["nobs"] == 180


def test_json_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["fit", SLEEP, "sleepstudy", "--json", "-", "--anova", "--ci", "wald"]
    assert main([*words, "--emmeans", "Days"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["anova"][0]["term"] == "Days"
    assert found["anova"][0]["F value"] == pytest.approx(45.853, abs=1e-3)
    assert found["emmeans"][0]["factors"] == "Days"
    assert found["emmeans"][0]["rows"][0]["emmean"] == pytest.approx(298.508, abs=1e-3)
    assert found["confint"][-1]["parameter"] == "Days"
    assert not Path("-").exists()


def test_anova_and_means(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "angle ~ recipe * temperature + (1 | recipe:replicate)", "cake"]
    more = ["--anova", "--emmeans", "recipe", "--emmeans", "recipe | temperature", "--pairwise"]
    assert main([*words, *more, "--ddf", "kenward-roger"]) == 0
    out = capsys.readouterr().out
    m = lmm.lmer(words[1], lmm.load_dataset("cake"))
    for table in (
        lmm.anova(m, ddf="kenward-roger"),
        m.emmeans("recipe", pairwise=True, ddf="kenward-roger"),
        m.emmeans("recipe", "temperature", pairwise=True, ddf="kenward-roger"),
    ):
        assert str(table) in out


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", SLEEP, "sleepstudy", "--markdown", "--ci", "wald", "--ranef", "--anova"]
    assert main(words) == 0
    out = capsys.readouterr().out
    m = lmm.lmer(SLEEP, lmm.load_dataset("sleepstudy"))
    assert m.summary().to_markdown() in out
    assert lmm.anova(m).to_markdown() in out
    assert "Random effects of Subject" in out
    lines = out.splitlines()
    assert any(line.startswith("| 308 |") for line in lines)


def test_generalized_models(capsys: pytest.CaptureFixture[str]) -> None:
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    words = ["fit", formula, "cbpp", "--family", "binomial"]
    assert main([*words, "--anova", "--emmeans", "period", "--ranef"]) == 0
    out = capsys.readouterr().out
    g = lmm.glmer(formula, lmm.load_dataset("cbpp"), "binomial")
    assert str(g.summary()) in out
    assert str(g.emmeans("period")) in out
    assert main([*words, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "binomial"
    assert found["criterion"] == pytest.approx(g.minus2loglik)
    assert "sigma" not in found


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["--pairwise"], "--pairwise is about --emmeans"),
        (["--emmeans", "Dayz"], "Dayz"),
        (["--emmeans", "|"], "lmmsparse: "),
    ],
)
def test_what_does_not_go_together(
    words: list[str], mentioned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", SLEEP, "sleepstudy", *words]) == 2
    out, err = capsys.readouterr()
    assert mentioned in err
    assert out == ""


def test_generalized_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    out = tmp_path / "out.json"
    words = ["fit", formula, "cbpp", "--family", "binomial", "--n-agq", "9", "--json", str(out)]
    assert main(words) == 0
    assert "adaptive Gauss-Hermite quadrature, 9 nodes" in capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["criterion"] == pytest.approx(183.966744, abs=1e-5)
    assert (found["family"], found["link"], found["dispersion"]) == ("binomial", "logit", 1.0)
    assert "sigma" not in found


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--family", "cauchy"], "is not a family"),
        (["--family", "poisson", "--link", "probit"], "'log', 'sqrt'"),
        (["--family", "poisson", "--ddf", "residual"], "linear mixed models"),
        (["--link", "probit"], "go with --family"),
    ],
)
def test_families_that_cannot_be(
    words: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "incidence ~ period + (1 | herd)", "cbpp", *words]) == 2
    assert match in " ".join(capsys.readouterr().err.split())


def test_json_has_tests_and_their_method(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", SLEEP, "sleepstudy", "--json", "-", "--level", "0.9"]
    m = lmm.lmer(SLEEP, lmm.load_dataset("sleepstudy"))
    for more, options in (
        ([], {}),
        (["--ddf", "KR"], {"ddf": "kenward-roger"}),
        (["--robust", "cr2", "--cluster", "Subject"], {"robust": "CR2", "cluster": "Subject"}),
    ):
        assert main([*words, *more]) == 0
        found = json.loads(capsys.readouterr().out, parse_constant=_refuse)
        table = m.coef_table(level=0.9, **options).to_frame()
        named = {"se": "Std. Error", "df": "df", "statistic": "t value", "p_value": "Pr(>|t|)"}
        named |= {"estimate": "Estimate", "lower": "lower.CL", "upper": "upper.CL"}
        for name, column in named.items():
            assert [row[name] for row in found["fixef"]] == pytest.approx(table[column].tolist())
        said = {"ddf": "satterthwaite", "robust": None, "cluster": None, "level": 0.9}
        given = {"ddf": "kenward-roger"} if "ddf" in options else {}
        given |= {"robust": "cr2", "cluster": "Subject"} if "robust" in options else {}
        assert found["tests"] == {**said, **given}
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    assert main(["fit", formula, "cbpp", "--family", "binomial", "--json", "-", "--r2"]) == 0
    found = json.loads(capsys.readouterr().out)
    g = lmm.glmer(formula, lmm.load_dataset("cbpp"), "binomial")
    assert [row["p_value"] for row in found["fixef"]] == pytest.approx(
        g.coef_table()["Pr(>|z|)"].tolist()
    )
    assert found["tests"]["ddf"] == "asymptotic"
    assert found["r2"] == pytest.approx(g.r2().to_dict())
    assert found["icc"] == pytest.approx(g.icc().to_dict())


def test_robust_tests_are_in_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    formula = "Weight ~ Time * Cu + (1 | Pig)"
    words = ["fit", formula, "dietox", "--robust", "CR2", "--cluster", "Litter"]
    assert main([*words, "--anova", "--emmeans", "Cu"]) == 0
    out = capsys.readouterr().out
    pigs = lmm.load_dataset("dietox")
    m = lmm.lmer(formula, pigs)
    how: dict[str, Any] = {"robust": "CR2", "cluster": pigs["Litter"]}
    for part in (m.summary(**how), lmm.anova(m, **how), m.emmeans("Cu", **how)):
        assert str(part) in out


def test_options_of_means(capsys: pytest.CaptureFixture[str]) -> None:
    formula = "log(angle) ~ recipe * temp + (1 | recipe:replicate)"
    cake = lmm.load_dataset("cake")
    m = lmm.lmer(formula, cake)
    words = ["fit", formula, "cake", "--emmeans", "recipe | temp", "--at", "temp=180,220"]
    at = {"temp": [180, 220]}
    for more, options in (
        (["--type", "response"], {"type": "response"}),
        (["--pairwise", "--regrid"], {"pairwise": True, "regrid": "response"}),
        (
            ["--contrasts", "trt.vs.ctrl", "--reverse", "--adjust", "holm"],
            {"contrasts": "trt.vs.ctrl", "reverse": True, "adjust": "holm"},
        ),
    ):
        assert main([*words, *more]) == 0
        assert str(m.emmeans("recipe", "temp", at=at, **options)) in capsys.readouterr().out
    formula = "angle ~ recipe + temperature + (1 | recipe:replicate)"
    coded = ["fit", formula, "cake", "--coding", "recipe=sum", "--emmeans", "temperature"]
    assert main([*coded, "--emmeans-weights", "proportional", "--at", "recipe=A, B"]) == 0
    m = lmm.lmer(formula, cake, contrasts={"recipe": "sum"})
    out = capsys.readouterr().out
    assert str(m.emmeans("temperature", weights="proportional", at={"recipe": ["A", "B"]})) in out
    assert str(m.summary()) in out


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["--cluster", "Subject"], "--cluster goes with --robust"),
        (["--robust", "HC3"], "'CR2'"),
        (["--robust", "CR2", "--cluster", "Subjct"], "Did you mean 'Subject'?"),
        (["--at", "Days=1"], "--at is about --emmeans"),
        (["--regrid"], "--regrid is about --emmeans"),
        (["--emmeans-weights", "equal"], "--emmeans-weights is about --emmeans"),
        (["--weights", "proportional"], "--emmeans-weights proportional"),
        (["--emmeans", "Days", "--at", "Days=low"], "must hold numbers"),
    ],
)
def test_options_that_lack_something(
    words: list[str], mentioned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", SLEEP, "sleepstudy", *words]) == 2
    assert mentioned in " ".join(capsys.readouterr().err.split())

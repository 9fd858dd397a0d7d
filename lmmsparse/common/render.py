"""Cells of text with titles and notes → plain text, HTML, Markdown and LaTeX.

Numbers arrive as text: what is shown of them was decided before, and is the same in every format.
"""

from __future__ import annotations

import html
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

# Between the columns of a printed table.
GAP = "  "
_RULE = "1px solid currentColor"
_THIN = "1px solid #8888"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "×": r"$\times$", "²": "$^2$", "σ": r"$\sigma$", "θ": r"$\theta$", "…": r"\dots{}",
}  # fmt: skip
_NUMBER = re.compile(r"(<?)(-?[0-9.]+)(?:e([-+][0-9]+))?")


def aligned(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, centred: bool = False
) -> str:
    """Columns padded to equal width: the first `left` flush left, the others flush right."""
    widths = [max(len(str(row[j])) for row in [head, *rows]) for j in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            str(cell).ljust(w) if j < left else f"{cell!s:{'^' if centred else '>'}{w}}"
            for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(GAP.join(cells).rstrip())
    return "\n".join(lines)


@dataclass(frozen=True)
class Grid:
    """Cells of a table.

    Attributes
    ----------
    left : int
        How many columns hold labels, which are flush left.
    centred : bool
        Whether the other cells stand in the middle of their columns, rather than flush right.
    parts : tuple of int
        Rows with which a part of the table begins, after a rule.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    centred: bool = False
    parts: tuple[int, ...] = ()

    def text(self) -> str:
        """Columns padded with blanks, an empty line before a part."""
        lines = aligned(self.head, self.rows, self.left, self.centred).split("\n")
        for i in sorted(self.parts, reverse=True):
            lines.insert(i + 1, "")
        return "\n".join(lines)

    def html(self) -> str:
        """A table that takes its colours from the page."""
        head = "".join(self._cell("th", j, cell) for j, cell in enumerate(self.head))
        starts = f"<tr style='border-top:{_THIN}'>"
        rows = "".join(
            (starts if i in self.parts else "<tr>")
            + f"{''.join(self._cell('td', j, cell) for j, cell in enumerate(row))}</tr>"
            for i, row in enumerate(self.rows)
        )
        return (
            f"<table style='border-collapse:collapse;border-top:{_RULE};border-bottom:{_RULE};"
            "margin:0.2em 0;font-size:inherit;font-variant-numeric:tabular-nums'>"
            f"<thead><tr style='border-bottom:{_RULE}'>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )

    def _cell(self, tag: str, column: int, text: str) -> str:
        side = "left" if column < self.left else "center" if self.centred else "right"
        indent = "2em" if column < self.left and text.startswith(" ") else "0.7em"
        style = f"text-align:{side};padding:0.15em 0.7em 0.15em {indent};white-space:nowrap"
        return f"<{tag} style='{style}'>{html.escape(text.strip())}</{tag}>"

    def markdown(self) -> str:
        """A table of GitHub's Markdown."""
        side = ":---:" if self.centred else "---:"
        rule = [":---" if j < self.left else side for j in range(len(self.head))]
        lines = [[*map(_markdown, self.head)], rule, *([*map(_markdown, r)] for r in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def latex(self) -> str:
        """A tabular with the rules of the package booktabs."""
        side = "c" if self.centred else "r"
        columns = "l" * self.left + side * (len(self.head) - self.left)
        lines = [
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            " & ".join(map(latex, self.head)) + " \\\\",
            "\\midrule",
        ]
        for i, row in enumerate(self.rows):
            if i in self.parts and i:
                lines.append("\\midrule")
            cells = [_latex_label(c) if j < self.left else _numbers(c) for j, c in enumerate(row)]
            lines.append(" & ".join(cells) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


@dataclass(frozen=True)
class Section:
    """A title, whose first line stands out, a grid and lines below it; each may be missing."""

    title: str = ""
    grid: Grid | None = None
    lines: tuple[str, ...] = ()


def text_of(sections: Sequence[Section], between: str = "\n\n") -> str:
    """Sections as plain text, by default with an empty line between them."""
    parts = []
    for section in sections:
        grid = [section.grid.text()] if section.grid else []
        title = [section.title] if section.title else []
        parts.append("\n".join([*title, *grid, *section.lines]))
    return between.join(parts)


def html_of(sections: Sequence[Section]) -> str:
    """Sections as HTML, one below the other."""
    parts = []
    for section in sections:
        if section.title:
            first, *rest = map(html.escape, section.title.splitlines())
            parts.append(f"<div style='font-weight:600;margin-top:0.7em'>{first}</div>")
            parts += [f"<div>{line}</div>" for line in rest]
        if section.grid:
            parts.append(section.grid.html())
        parts += [f"<div>{html.escape(' '.join(line.split()))}</div>" for line in section.lines]
    return f"<div style='text-align:left;max-width:60em'>{''.join(parts)}</div>"


def markdown_of(sections: Sequence[Section]) -> str:
    """Sections as Markdown."""
    parts = []
    for section in sections:
        if section.title:
            first, *rest = map(_markdown, section.title.splitlines())
            parts += [f"**{first}**", *rest]
        if section.grid:
            parts.append(section.grid.markdown())
        parts += [_markdown(" ".join(line.split())) for line in section.lines]
    return "\n\n".join(parts)


def latex_of(sections: Sequence[Section], caption: str = "", label: str = "") -> str:
    """Tabulars and the lines below them; with a caption or a label as a floating table.

    Needs the package booktabs.
    """
    parts = []
    for section in sections:
        if section.grid:
            parts.append(section.grid.latex())
        lines = [latex(" ".join(line.split())) for line in section.lines]
        if lines:
            parts.append("\n".join(["{\\footnotesize", *(f"{line}\\par" for line in lines), "}"]))
    if not caption and not label:
        return "\n\n".join(parts)
    top = [f"\\caption{{{latex(caption)}}}"] if caption else []
    top += [f"\\label{{{label}}}"] if label else []
    middle = "\n\n\\medskip\n".join(parts)
    return "\n".join(["\\begin{table}", "\\centering", *top, middle, "\\end{table}"])


def _markdown(text: str) -> str:
    return re.sub(r"([\\|<*`])", r"\\\1", text.strip())


def latex(text: str) -> str:
    """Text with all that LaTeX would take for a command escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_label(cell: str) -> str:
    indent = "\\quad " if cell.startswith(" ") else ""
    return indent + latex(cell.strip())


def _numbers(cell: str) -> str:
    """A cell whose numbers stand in math mode; one may hold several: ``1.5 (0.2)``."""
    words = re.split(r"([\s()\[\],]+)", cell.strip())
    return "".join(_latex_number(word) for word in words)


def _latex_number(cell: str) -> str:
    """A number in math mode, with a proper minus and power of ten."""
    found = _NUMBER.fullmatch(cell)
    if found is None:
        return latex(cell)
    less, mantissa, exponent = found.groups()
    power = rf" \times 10^{{{int(exponent)}}}" if exponent else ""
    plain = not less and not power and not mantissa.startswith("-")
    return mantissa if plain else f"${less}{mantissa}{power}$"


class Shown(ABC):
    """What is read in sections: as text, and as HTML in a notebook."""

    @property
    @abstractmethod
    def _sections(self) -> Sequence[Section]: ...

    def __str__(self) -> str:
        return text_of(self._sections)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_of(self._sections)

"""Cells of text with titles and notes → plain text, HTML, Markdown and LaTeX.

Numbers arrive as text: what is shown of them was decided before, and is the same in every format.
"""

from __future__ import annotations

import html
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

_RULE = "1px solid currentColor"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "×": r"$\times$", "²": "$^2$", "σ": r"$\sigma$", "θ": r"$\theta$", "…": r"\dots{}",
}  # fmt: skip
_NUMBER = re.compile(r"(<?)(-?[0-9.]+)(?:e([-+][0-9]+))?")


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns padded to equal width: the first `left` flush left, the others flush right."""
    widths = [max(len(str(row[j])) for row in [head, *rows]) for j in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            str(cell).ljust(w) if j < left else str(cell).rjust(w)
            for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" ".join(cells).rstrip())
    return "\n".join(lines)


@dataclass(frozen=True)
class Grid:
    """Cells of a table; `left` says how many columns hold labels, which are flush left."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def text(self) -> str:
        """Columns padded with blanks."""
        return aligned(self.head, self.rows, self.left)

    def html(self) -> str:
        """A table that takes its colours from the page."""
        head = "".join(self._cell("th", j, cell) for j, cell in enumerate(self.head))
        rows = "".join(
            f"<tr>{''.join(self._cell('td', j, cell) for j, cell in enumerate(row))}</tr>"
            for row in self.rows
        )
        return (
            f"<table style='border-collapse:collapse;border-top:{_RULE};border-bottom:{_RULE};"
            "margin:0.2em 0;font-size:inherit;font-variant-numeric:tabular-nums'>"
            f"<thead><tr style='border-bottom:{_RULE}'>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )

    def _cell(self, tag: str, column: int, text: str) -> str:
        side = "left" if column < self.left else "right"
        style = f"text-align:{side};padding:0.15em 0.7em;white-space:nowrap"
        return f"<{tag} style='{style}'>{html.escape(text)}</{tag}>"

    def markdown(self) -> str:
        """A table of GitHub's Markdown."""
        rule = [":---" if j < self.left else "---:" for j in range(len(self.head))]
        lines = [[*map(_markdown, self.head)], rule, *([*map(_markdown, r)] for r in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def latex(self) -> str:
        """A tabular with the rules of the package booktabs."""
        columns = "l" * self.left + "r" * (len(self.head) - self.left)
        lines = [
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            " & ".join(map(latex, self.head)) + " \\\\",
            "\\midrule",
        ]
        for row in self.rows:
            cells = [latex(c) if j < self.left else _latex_number(c) for j, c in enumerate(row)]
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


def _markdown(text: str) -> str:
    return re.sub(r"([\\|<*`])", r"\\\1", text)


def latex(text: str) -> str:
    """Text with all that LaTeX would take for a command escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


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

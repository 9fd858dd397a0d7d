"""MkDocs hooks: Python blocks are run while the site is built, TeX becomes MathML."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import pages

_MATH = re.compile(r'<(?P<tag>span|div) class="arithmatex">(?P<body>.*?)</(?P=tag)>', re.S)
_PICTURE = re.compile(r"!\[[^]]*\]\((?P<name>[\w-]+\.png)\)")
_INCLUDE = re.compile(r"^<!-- include: (?P<path>\S+) -->$", re.M)
# The sign for a prime is drawn small and raised already; as a superscript it would vanish.
_PRIME = re.compile(r"<msup>((?:(?!</?msup>).)*)<mi>&#x02032;</mi></msup>")
_WIDE = re.compile(r'(?<=<div class="wide">).*?</div>', re.S)
_HEAD = re.compile(r"<th[^>]*>(.*?)</th>", re.S)
_ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the output of each block below it, and the text of a file where it is to be included."""
    name = page.file.src_uri
    markdown = _INCLUDE.sub(lambda match: _included(match["path"], name, config, files), markdown)
    try:
        results = pages.run(markdown, name)
    except pages.PageError as error:
        raise PluginError(str(error)) from error
    out, position, count = [], 0, 0
    for block, output in results:
        out.append(markdown[position : block.start])
        if "hide" not in block.options:
            out.append(f"```python\n{block.code}```\n")
        if output.message:
            out.append(f"\n``` {{ .text .output .message }}\n{output.message}\n```\n")
        if output.text:
            out.append(f"\n``` {{ .text .output }}\n{output.text}\n```\n")
        if output.html:
            out.append(f'\n<div class="output" markdown="0">{output.html}</div>\n')
        for figure in output.figures:
            count += 1
            path = f"figures/{name.removesuffix('.md')}-{count}.svg"
            files.append(File.generated(config, path, content=figure))
            up = "../" * name.count("/")
            out.append(f"\n![{html.escape(block.alt)}]({up}{path}){{ .figure }}\n")
        position = block.end
    return "".join([*out, markdown[position:]])


def _included(path: str, page: str, config: Any, files: Any) -> str:
    """A Markdown file from outside docs/ without its title, its headings one level deeper."""
    text = (_ROOT / path).read_text(encoding="utf-8")
    title, _, body = text.partition("\n")
    if not title.startswith("# "):
        raise PluginError(f"{path} does not begin with a title")
    for picture in _PICTURE.findall(body):
        source = (_ROOT / path).parent / picture
        files.append(File.generated(config, f"figures/{picture}", content=source.read_bytes()))
        body = body.replace(f"]({picture})", f"]({'../' * page.count('/')}figures/{picture})")
    body = body.replace(r"\|", "|")  # GitHub wants bars in tables escaped, even inside code
    return re.sub(r"^(#+) ", r"#\1 ", body, flags=re.M)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, nothing loaded; cells of wide tables with the heads of their columns."""
    return _WIDE.sub(_labelled, _MATH.sub(_mathml, content))


def _labelled(match: re.Match[str]) -> str:
    """Every cell knows the head of its column, which stands before it where rows become lists."""
    return re.sub(r"<table>.*?</table>", _with_heads, match[0], flags=re.S)


def _with_heads(match: re.Match[str]) -> str:
    table = match[0]
    heads = [re.sub(r"<[^>]+>", "", head).strip() for head in _HEAD.findall(table)]

    def row(found: re.Match[str]) -> str:
        count = iter(heads)
        return re.sub(r"<td", lambda _: f'<td data-head="{next(count, "")}"', found[0])

    return re.sub(r"<tr>(?:(?!</tr>).)*<td.*?</tr>", row, table, flags=re.S)


def _mathml(match: re.Match[str]) -> str:
    display = match["tag"] == "div"
    tex = html.unescape(match["body"]).strip()[2:-2]
    mathml = convert(tex, display="block" if display else "inline")
    return _PRIME.sub(r'<mrow>\1<mo lspace="0" rspace="0">&#x02032;</mo></mrow>', mathml)

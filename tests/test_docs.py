"""The documents: links lead somewhere, prose fits, the Spanish README follows the English one."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY

DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(CODE.sub("", document.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_prose_fits(document: Path) -> None:
    lines = CODE.sub("", document.read_text()).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_spanish_readme_follows_the_english_one() -> None:
    """After a change of README.md: translate it, then put the new digest into the first line of README.es.md."""
    english, spanish = ((REPOSITORY / name).read_text() for name in ("README.md", "README.es.md"))
    digest = hashlib.sha256(english.encode()).hexdigest()
    assert f"sha256 {digest} " in spanish.splitlines()[0]
    assert CODE.findall(spanish) == CODE.findall(english)
    tables = [[line.count("|") for line in text.splitlines() if line.startswith("|")] for text in (english, spanish)]
    assert tables[0] == tables[1]
    links = [set(LINK.findall(CODE.sub("", text))) - {"README.md", "README.es.md"} for text in (english, spanish)]
    assert links[0] == links[1]
    assert len(re.findall("^#", english, re.MULTILINE)) == len(re.findall("^#", spanish, re.MULTILINE))

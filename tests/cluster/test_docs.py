"""The documentation's command lines, typed in their order on a new cluster: what comes back is what the pages show."""

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.releases import REPO, ensure_root
from transcripts.blocks import Remark, blocks, parts
from transcripts.session import Played, Session, fresh_cluster, ready

#: The release on which pages are played whole. Others play what is marked for them.
WHOLE = "pacific"
PAGES = [
    page
    for page in [REPO / "README.md", *sorted((REPO / "doc").glob("*.md"))]
    if any(block.language == "console" for block in blocks(page.read_text()))
]


def play(page: Path, release: str) -> list[Played]:
    """Type a page on a cluster of its own."""
    with fresh_cluster(release) as cluster:
        ready(cluster)
        played = list(Session(cluster, only_marked=release != WHOLE).play(page.read_text()))
        assert cluster.crashes() == []
    return played


@pytest.fixture(scope="session")
def pages(release_name: str) -> Iterator[dict[str, "concurrent.futures.Future[list[Played]]"]]:
    """Every page that has something to type on this release, being played: they mostly wait, so several at once."""
    ensure_root(release_name)
    marked = [
        page for page in PAGES if release_name == WHOLE or Remark("only", release_name) in parts(page.read_text())
    ]
    with concurrent.futures.ThreadPoolExecutor(max_workers=3) as pool:
        # The longest first.
        ordered = sorted(marked, key=lambda page: -page.stat().st_size)
        yield {page.name: pool.submit(play, page, release_name) for page in ordered}


@pytest.mark.timeout(900)  # the first one waits for pages that are played beside it
@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_commands_of_the_documentation_give_what_it_shows(
    page: str, pages: dict[str, "concurrent.futures.Future[list[Played]]"], release_name: str
) -> None:
    if page not in pages:
        pytest.skip(f"typed on {WHOLE.capitalize()}; nothing in it is particular to this release")
    played = pages[page].result()
    assert played
    wrong = [entry for entry in played if not entry.good]
    assert not wrong, "\n\n".join(map(str, wrong)) + f"\n\n`make examples PAGES=...{page}` writes what came back"

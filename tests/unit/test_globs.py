"""Path patterns as Promtail's library reads them (github.com/bmatcuk/doublestar, v4)."""

from __future__ import annotations

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import globs


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/a/*.log", "/a/x.log", True),
        ("/a/*.log", "/a/b/x.log", False),
        ("/a/*.log", "/a/.x.log", True),
        ("/a/w?.log", "/a/w1.log", True),
        ("/a/w?.log", "/a/w.log", False),
        ("/a/[a-c]x", "/a/bx", True),
        ("/a/[^a-c]x", "/a/bx", False),
        ("/a/[!a-c]x", "/a/dx", True),
        ("/a/[\\]]x", "/a/]x", True),
        ("/a/[a\\-c]x", "/a/-x", True),
        ("/a/[a\\-c]x", "/a/bx", False),
        ("/a/{b,c{d,e}}.log", "/a/ce.log", True),
        ("/a/{b,c{d,e}}.log", "/a/cb.log", False),
        ("/a/{b/c,d}/x", "/a/b/c/x", True),
        ("/a/\\*.log", "/a/*.log", True),
        ("/a/\\*.log", "/a/x.log", False),
        ("/a/\\{b,c}", "/a/{b,c}", True),
        ("/a/**/x.log", "/a/x.log", True),
        ("/a/**/x.log", "/a/b/c/x.log", True),
        ("/a/**", "/a/b/c", True),
        ("/a/b**/x", "/a/bcd/x", True),
        ("/a/b**/x", "/a/b/c/x", False),
        ("/a/(x)+.log", "/a/(x)+.log", True),
        ("/a/x\ny", "/a/x\ny", True),
    ],
)
def test_matches(pattern, path, fits):
    assert globs.matches(pattern, path) is fits


@pytest.mark.parametrize("pattern", ["/a/[", "/a/[]", "/a/{b", "/a/{b,{c}", "/a/b\\", "/a/[a", "/a/../b", "/a/{.,b}/c"])
def test_pattern_that_cannot_be_read(pattern):
    with pytest.raises(globs.PatternError):
        globs.check(pattern)


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("/a/b/*.log", "/a/b"),
        ("/a/*/b/x", "/a"),
        ("/a/b.log", "/a"),
        ("/*", "/"),
        ("/a\\*/b/*", "/a*/b"),
        ("/a/[b]/c", "/a"),
    ],
)
def test_fixed_part(pattern, folder):
    assert globs.fixed_part(pattern) == folder


def test_folders_are_found_and_nesting_has_an_end(tmp_path, monkeypatch):
    deep = tmp_path / "a/b/c/d"
    deep.mkdir(parents=True)
    (tmp_path / "a/loop").symlink_to(".")
    found = set(globs.folders(f"{tmp_path}/**/x.log"))
    assert found == {str(path) for path in (tmp_path, *list(deep.parents)[:3], deep)}
    monkeypatch.setattr(globs, "DEEPEST", 2)
    assert str(deep) not in set(globs.folders(f"{tmp_path}/**/x.log"))
    assert list(globs.folders(f"{tmp_path}/*/loop/b/*.log")) == [f"{tmp_path}/a/loop/b"]

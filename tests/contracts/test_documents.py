"""Every snippet in every document runs, in the order in which a reader meets it.

The blocks of one document share an empty folder. ``python`` blocks run as scripts, ``sh`` blocks under ``bash -e``. A
block that needs what a test machine lacks says so in its first line (``# needs: a GPU``); only its syntax is checked.
Two things are swapped so that this takes seconds: the base model for a tiny random one, and the suite for its
smallest form.
"""

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(path for deep in range(1, 5) for path in ROOT.glob("*/" * deep + "README.md"))]
    if not {".venv", "runs", "recipes"} & set(path.relative_to(ROOT).parts)
)
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
SMALLEST_SUITE = ("--suite smoke", "--suite tiny")


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def runs_here(self) -> bool:
        return not self.text.startswith("# needs:")


def _blocks(path: Path) -> list[Block]:
    return [Block(language, text) for language, text in BLOCK.findall(path.read_text("utf-8"))]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


WITH_BLOCKS = [path for path in DOCUMENTS if any(block.runs_here for block in _blocks(path))]


def test_there_is_a_readme_in_every_folder() -> None:
    folders = ["", "rlhi_plugin", "training", "adapters", "eval_harness", "examples", "benchmarks", "tests"]
    assert [folder for folder in folders if not (ROOT / folder / "README.md").is_file()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text("utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_make_targets_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"^make ([a-z]+)", "\n".join(block.text for block in _blocks(path)), re.MULTILINE))
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_BLOCKS, ids=_name)
def test_blocks_run(path: Path, tmp_path: Path, tiny_model_dir: Path) -> None:
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RLHI_KEY": "0" * 64,
        "RLHI_REGISTRY": str(tmp_path / "registry"),
        "RLHI_MODEL__BASE": str(tiny_model_dir),
        "RLHI_MODEL__MAX_NEW_TOKENS": "16",
        "RLHI_TRAIN__EPOCHS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    for number, block in enumerate(_blocks(path)):
        if not block.runs_here:
            if block.language == "python":
                ast.parse(block.text)
            continue
        # `make` targets are what CI itself runs; here only the commands of the packages are.
        text = re.sub(r"^make .*\n", "", block.text, flags=re.MULTILINE).replace(*SMALLEST_SUITE)
        shell = ["bash", "-euo", "pipefail", "-c", text]
        command = [sys.executable, "-c", text] if block.language == "python" else shell
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"block {number}:\n{block.text}\n{done.stdout}\n{done.stderr}"

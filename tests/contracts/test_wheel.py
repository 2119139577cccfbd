"""The built wheel holds four packages, their data files, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    # Without isolation: the build back end is already installed, and tests need no network.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_top_level_names(wheel_names: list[str]) -> None:
    top = {name.partition("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "rlhi_plugin",
        "rlhi_training",
        "rlhi_adapters",
        "rlhi_eval_harness",
    }


def test_every_data_file_of_a_package_is_in_the_wheel(wheel_names: list[str]) -> None:
    data = set()
    for folder in ("rlhi_plugin", "training/rlhi_training", "adapters/rlhi_adapters", "eval_harness/rlhi_eval_harness"):
        package = ROOT / folder
        data |= {
            f"{package.name}/{path.relative_to(package).as_posix()}"
            for path in package.rglob("*")
            if path.suffix in {".toml", ".md", ".jsonl", ".csv", ".typed", ".j2", ".css", ".js"}
            and path.name != "README.md"
        }
    assert data
    assert data <= set(wheel_names)


def test_the_steps_between_store_schemas_are_in_the_wheel(wheel_names: list[str]) -> None:
    from rlhi_plugin.stores.schema import STORE_SCHEMA

    folder = "rlhi_plugin/stores/migrations"
    steps = {f"{folder}/versions/to_schema_{number}.py" for number in range(1, STORE_SCHEMA + 1)}
    assert {f"{folder}/env.py", *steps} <= set(wheel_names)

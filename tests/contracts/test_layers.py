"""The layers that pyproject.toml declares hold: who may import whom, and one vendor in one file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "rlhi_plugin": ROOT / "rlhi_plugin",
    "rlhi_training": ROOT / "training" / "rlhi_training",
    "rlhi_adapters": ROOT / "adapters" / "rlhi_adapters",
    "rlhi_eval_harness": ROOT / "eval_harness" / "rlhi_eval_harness",
}
ONE_VENDOR_ONE_PLACE = {
    "trl": {
        "training/rlhi_training/trainer.py",
        "training/rlhi_training/tree",
        "training/rlhi_training/methods/sequence_trainer.py",
    },
    "litellm": {"rlhi_plugin/litellm_client.py", "rlhi_plugin/integrations/litellm_callback.py"},
    "openai": {
        "rlhi_plugin/calls/openai_client.py",
        "rlhi_plugin/integrations/openai_client.py",
        "rlhi_plugin/integrations/openai_streams.py",
    },
    "bitsandbytes": {"adapters/rlhi_adapters/four_bit.py"},
    "vllm": {"adapters/rlhi_adapters/vllm_client.py"},
    "llguidance": {"adapters/rlhi_adapters/json_constraint.py"},
    "aiolimiter": {"rlhi_plugin/calls/rate_limit.py"},
    "jsonschema": {"rlhi_plugin/calls/replies.py"},
    "tenacity": {"rlhi_plugin/calls/retrying.py"},
    "sqlalchemy": {"rlhi_plugin/stores"},
    "alembic": {"rlhi_plugin/stores"},
    "pyarrow": {
        "eval_harness/rlhi_eval_harness/reasoning/lm_eval_tasks.py",
        "rlhi_plugin/importers/parquet_rows.py",
        "rlhi_plugin/parquet_logs.py",
        "rlhi_plugin/sqlite_parquet_worker.py",
        "training/rlhi_training/pair_rows.py",
    },
    "adbc_driver_sqlite": {"rlhi_plugin/sqlite_parquet_worker.py"},
    "adbc_driver_manager": {"rlhi_plugin/sqlite_parquet_worker.py"},
    "cryptography": {"rlhi_plugin/privacy/vault.py"},
    "phonenumbers": {"rlhi_plugin/privacy/phone.py"},
    "py3langid": {"rlhi_plugin/text_language.py", "training/rlhi_training/screens/language.py"},
    "presidio_analyzer": {"rlhi_plugin/privacy/presidio.py"},
    "gradio": {"eval_harness/rlhi_eval_harness/human/page.py"},
    "lm_eval": {"eval_harness/rlhi_eval_harness/reasoning"},
    "math_verify": {"eval_harness/rlhi_eval_harness/reasoning/answers.py"},
    "pandas": {
        "eval_harness/rlhi_eval_harness/alpaca/annotator.py",
        "eval_harness/rlhi_eval_harness/alpaca/length_control.py",
    },
    "krippendorff": {"eval_harness/rlhi_eval_harness/inference/agreement.py"},
    "statsmodels": {"eval_harness/rlhi_eval_harness/inference"},
    # The evaluation's plots name one of its types.
    "matplotlib": {
        "rlhi_plugin/page/figures.py",
        "eval_harness/rlhi_eval_harness/report",
        "training/rlhi_training/labelling/report_page.py",
    },
    "jinja2": {"rlhi_plugin/page/html.py"},
    "rensa": {"training/rlhi_training/screens/near_duplicates.py"},
    "rbloom": {"training/rlhi_training/screens/near_duplicates.py"},
    "profanity_check": {"training/rlhi_training/screens/toxicity.py"},
    "ray": {"training/rlhi_training/scale/ray_engine.py"},
    "huggingface_hub": {
        "training/rlhi_training/hub_rows.py",
        "adapters/rlhi_adapters",
        "eval_harness/rlhi_eval_harness/suites/published_files.py",
    },
}


def test_import_linter_contracts_are_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def _imported(path: Path) -> set[str]:
    """Top-level names that a file imports, at module level or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("vendor", sorted(ONE_VENDOR_ONE_PLACE))
def test_a_vendor_is_imported_in_its_own_place_only(vendor: str) -> None:
    places = ONE_VENDOR_ONE_PLACE[vendor]
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in PACKAGES.values()
        for path in folder.rglob("*.py")
        if vendor in _imported(path)
    }
    assert users, f"nothing imports {vendor}: remove it from the dependencies and from this table"
    strays = {user for user in users if not any(user == place or user.startswith(place + "/") for place in places)}
    assert not strays


def test_outer_folders_are_not_packages() -> None:
    # `adapters` is another distribution's import name; an __init__.py here would claim it.
    assert not [
        folder for folder in ("training", "adapters", "eval_harness") if (ROOT / folder / "__init__.py").exists()
    ]

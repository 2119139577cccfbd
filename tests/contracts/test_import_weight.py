"""What an app imports stays light: the live half never loads the offline half's libraries."""

import json
import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "lm_eval",
    "alpaca_eval",
    "litellm",
    "matplotlib",
    "scipy",
    "phonenumbers",
]


def _loaded_by(statement: str) -> set[str]:
    """The heavy top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY)


@pytest.mark.parametrize(
    "statement",
    [
        "import rlhi_plugin",
        "import rlhi_plugin.cli",
        "import rlhi_plugin.fake_provider",
        "import rlhi_plugin.integrations.openai_client",
        "import rlhi_training.cli",
        "import rlhi_adapters.cli",
        "import rlhi_eval_harness.cli",
    ],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    assert _loaded_by(statement) == set()

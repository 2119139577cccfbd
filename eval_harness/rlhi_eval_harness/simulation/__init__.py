"""Simulated users: hidden preferences that code can check, complaints in their own words, requests of everyday life.

    from rlhi_eval_harness.simulation import Habits, converse, population, requests_for

Nothing outside this folder, and the scoring that reads what it wrote, knows what a simulated user wants. The assistant,
the labeller, the persona builder and the trainer see only what the user says.
"""

from rlhi_eval_harness.simulation.conversation import ConversationSummary, Habits, Utterance, converse
from rlhi_eval_harness.simulation.phrases import Phrases, load_phrases, requests_for
from rlhi_eval_harness.simulation.users import SimulatedUser, compatible, population

__all__ = [
    "ConversationSummary",
    "Habits",
    "Phrases",
    "SimulatedUser",
    "Utterance",
    "compatible",
    "converse",
    "load_phrases",
    "population",
    "requests_for",
]

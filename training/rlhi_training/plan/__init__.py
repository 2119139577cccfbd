"""What a run will take, before anything is spent: calls, tokens, money, GPU, pairs, and what its evaluation can see.

Read in this order: `forecast` (the run's own stages over stand-ins), `money`, `hardware`, `power`, `report`, `command`.
"""

"""What a proposed pair must survive, in reading order.

`predicates` (one pair at a time, no model), `rewrites` (does a rewrite address the feedback, and is it not worse in
general), `contamination` (does a pair hold an evaluation prompt), `caps` (how much one user may contribute).
"""

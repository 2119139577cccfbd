"""Exact preference training that computes what sequences have in common once.

Read in this order: `prefix_tree` (rows of tokens become trees), `answer_head` (log-probabilities of answer tokens under
a frozen output layer), `forward` (puts both under TRL's trainer), `packing` and `packed_step` (a batch in passes of a
token budget).
"""

"""Logs of millions of conversations: the same stages over shards, on many processes or machines, in bounded memory.

In reading order: `layout` (who works where), `lines` (files of lines with an order), `blocks` (a log in parts, each
screened alone), `gather` (what only the whole log decides, and the shards), `learn` (labels and personas of a shard),
`room` (who listens to whose requests), `pairing` (pairs of a shard), `merge` (one file of pairs), `engine` and
`ray_engine` (who does the work), `pipeline` (the stages in order).
"""

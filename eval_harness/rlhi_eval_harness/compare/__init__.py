"""Two evaluations of the same suite, item by item: what changed, and whether that is more than noise.

In reading order: `sides` reads a report, `sameness` refuses what cannot be compared, `records` says what a comparison
is, `differences` computes it, `texts` prints it, `cli` is ``rlhi-eval compare``.
"""

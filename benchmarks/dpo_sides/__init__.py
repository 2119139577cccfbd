"""What `benchmarks/dpo.py` compares: workloads, the ways to train, their times and their memory."""

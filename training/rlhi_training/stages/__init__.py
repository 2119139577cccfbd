"""The stages, in pipeline order: ingest, label, personas, rewrite, reward, contrast, filter, pairs.

Each file has one public function that turns records into records and a list of what it dropped.
"""

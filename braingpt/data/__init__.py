"""Data: sources to documents, quality and duplicates, tokens in shards, and batches.

`prepare/pipeline.py` shows the way of a text into a shard, `batches/batches.py` the way of a shard into
batches.
"""

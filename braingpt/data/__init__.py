"""Sources to documents to filters to tokens to shards; `mixture.py` turns shards into batches."""

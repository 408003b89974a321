"""Sources to documents to filters to tokens to shards; `batches/` turns shards into batches."""

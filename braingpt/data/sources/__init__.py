"""Where documents come from: the catalog of corpora, the hub, local files, streams of documents."""

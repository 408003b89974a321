"""Prepared folders: manifest, writer, reader, documents, report."""

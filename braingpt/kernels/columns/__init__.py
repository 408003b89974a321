"""Columns that run only for the tokens they win."""

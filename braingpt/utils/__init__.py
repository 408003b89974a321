"""Small helpers that know nothing of language models: atomic writes, figures as text."""

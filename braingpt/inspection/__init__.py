"""Inspection: what each layer of a model really leaves out, counted on real text."""

"""The slow tier of episodic memory: texts taught once, kept exactly, read while the model writes."""

"""How well a model predicts, answers and recalls, with the uncertainty of each figure."""

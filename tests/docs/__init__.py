"""The documents hold what they promise: commands, outputs, Python, links."""

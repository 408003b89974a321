"""HTML pages that are one file each, with their plots inside: nothing is loaded, no scripts run."""

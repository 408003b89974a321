"""The reports of `braingpt bench`: tables, matched comparisons, claims, a page."""

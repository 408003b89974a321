"""What `braingpt bench` shows: tables, matched comparisons, claims, a page."""

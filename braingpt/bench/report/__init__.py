"""What `bench` prints: sections, comparisons, claims, a page."""

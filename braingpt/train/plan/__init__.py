"""What a run will take: memory, disk and time."""

"""Our own tasks, in Korean and English."""

"""Optimizers, weight averages and schedules."""

"""The machine a run computes on: device and precision, CPU settings, threads, free memory, torch.compile."""

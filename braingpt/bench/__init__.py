"""Speed, memory and learning of architectures, side by side in one run."""

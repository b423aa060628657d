"""The training loop: steps and epochs, schedule, devices, checkpoints, checks."""

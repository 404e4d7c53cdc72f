"""What a switch does, step by step, forward and back, and who takes it up when it died."""

"""How a release comes into being: recorded anew, adopted, or taken from a file."""

"""What is gathered of a switch, without secrets, and its folder for readers."""

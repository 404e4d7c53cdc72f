"""What a stack is made from: its compose files, read and defined. Nothing is run here."""

"""What a world is on the host: its compose model, containers, volumes, images, and its removal."""

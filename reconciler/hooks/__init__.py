"""The user's hooks: when they run, what they are told, what their failure does."""

"""Who is told what happened, and in which words."""

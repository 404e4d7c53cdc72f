"""Work beside the live world: drills and rehearsals, on copies."""

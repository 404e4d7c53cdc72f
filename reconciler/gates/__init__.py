"""Gates: what a new world must show before it is live, beside its health checks.

model      what a gate may say in the compose file and in the config
judging    what an answer is worth, and when enough was asked; pure
results    what became of each gate, for the ledger and for people
asking     one question, asked once; by kind in web, inside, watching, onhost; health beside it
keeper     asking until a gate lets pass or its limits are reached
"""

"""The report: what the ledger, the records and the books of a stack tell, as one page of HTML."""

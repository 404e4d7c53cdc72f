"""What is written down for good: releases, the ledger, the journal, and if they are as written."""

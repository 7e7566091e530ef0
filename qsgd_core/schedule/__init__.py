"""Hardware jobs on a budget: the ledger, the courier, and what the training loop asks of them."""

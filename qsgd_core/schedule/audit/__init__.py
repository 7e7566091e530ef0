"""What a service has of ours, beside what the ledger says."""

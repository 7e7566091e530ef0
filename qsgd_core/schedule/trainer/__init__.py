"""The training thread's side of a paid run: no disk, no ledger, no lock."""

"""The database of budgets, reservations, jobs and results."""

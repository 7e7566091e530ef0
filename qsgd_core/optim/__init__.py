"""The term on a torch optimizer: which coordinates, where s comes from, and the hooks."""

"""Braket's QPUs and on-demand simulators, through AWS."""

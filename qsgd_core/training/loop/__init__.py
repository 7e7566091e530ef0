"""The training loop and what a session needs: steps, rates, checkpoints."""

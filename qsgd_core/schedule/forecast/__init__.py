"""What a run would cost, and be worth, before it costs anything."""

"""A workload and a step to ⟨observables⟩ and where they came from, for whoever asks."""

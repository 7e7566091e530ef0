"""The lab: the paper's tasks and models, to find out whether the quantum term helps."""

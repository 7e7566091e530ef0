"""The courier's side of a paid run: questions become jobs, jobs results."""

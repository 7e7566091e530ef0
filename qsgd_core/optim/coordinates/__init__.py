"""Which coordinates carry the term, and reading and writing them."""

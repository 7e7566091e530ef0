"""The core's own provider: registered through the same hooks as anyone else's."""

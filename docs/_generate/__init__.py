"""Makes the reference pages of the documentation: `make docs`."""

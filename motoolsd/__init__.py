"""The daemon that owns a .motools cache directory. See docs/architecture.md for the rooms."""

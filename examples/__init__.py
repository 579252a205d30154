"""Programs that use the cache the way a project would."""

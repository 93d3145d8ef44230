"""The resident agent: socket server, background work, metrics, readiness. Must not know how a verb works."""

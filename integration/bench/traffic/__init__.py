"""How fast pods' packets are: with this plugin, and with the reference plugins, on one kernel in one run."""

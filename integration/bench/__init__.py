"""How fast: whole CNI calls of this plugin beside those of the reference plugins, in one run."""
